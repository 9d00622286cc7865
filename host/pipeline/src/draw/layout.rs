//! Where boxes stand: columns by longest path from a source, so that every arrow points to the right; within a column by the
//! mean position of the neighbours (barycentre), swept a few times both ways; arrows over several columns keep a lane free.
//! Each group has rows of its own, so that the frames around groups never overlap.
//!
//! After Sugiyama, Tagawa, Toda, "Methods for visual understanding of hierarchical system structures", 1981.

use super::Drawing;

/// Sweeps over the columns; more change little in graphs of the size that people look at.
const SWEEPS: usize = 8;
/// Beyond this many places, lanes for long arrows are not kept free: their number grows with boxes times columns.
const MAX_PLACES: usize = 20_000;

/// A box's or lane's place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cell {
    pub column: usize,
    pub row: usize,
}

/// The result.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// For each box.
    pub cells: Vec<Cell>,
    /// For each arrow the lanes in the columns between its ends.
    pub lanes: Vec<Vec<Cell>>,
    pub columns: usize,
    pub rows: usize,
}

pub(super) fn layout(drawing: &Drawing) -> Layout {
    let ranks = ranks(drawing);
    let columns = ranks.iter().max().map_or(0, |rank| rank + 1);
    let mut places: Vec<usize> = ranks.clone();
    let mut links: Vec<(usize, usize)> = Vec::new();
    let mut lanes: Vec<Vec<usize>> = Vec::new();
    // The band of rows of each place: its group's, or one below all groups. A lane belongs to where its arrow begins.
    let band = |node: usize| drawing.nodes[node].group.unwrap_or(drawing.groups.len());
    let mut bands: Vec<usize> = (0..drawing.nodes.len()).map(band).collect();
    for arrow in &drawing.edges {
        let mut at = arrow.from;
        let mut own = Vec::new();
        if places.len() < MAX_PLACES {
            for column in ranks[arrow.from] + 1..ranks[arrow.to] {
                own.push(places.len());
                links.push((at, places.len()));
                at = places.len();
                places.push(column);
                bands.push(band(arrow.from));
            }
        }
        links.push((at, arrow.to));
        lanes.push(own);
    }
    let rows = into_bands(&places, &bands, &order(&places, &links, columns));
    let cell = |place: usize| Cell { column: places[place], row: rows[place] };
    Layout {
        cells: (0..drawing.nodes.len()).map(cell).collect(),
        lanes: lanes.into_iter().map(|own| own.into_iter().map(cell).collect()).collect(),
        columns,
        rows: rows.iter().max().map_or(0, |row| row + 1),
    }
}

/// Longest path to each box. With cycles, which checked graphs do not have, counting stops at the number of boxes.
fn ranks(drawing: &Drawing) -> Vec<usize> {
    let count = drawing.nodes.len();
    let mut ranks = vec![0; count];
    for _ in 0..count {
        let mut changed = false;
        for arrow in &drawing.edges {
            if ranks[arrow.to] < ranks[arrow.from] + 1 && ranks[arrow.from] + 1 < count {
                ranks[arrow.to] = ranks[arrow.from] + 1;
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    ranks
}

fn order(places: &[usize], links: &[(usize, usize)], columns: usize) -> Vec<usize> {
    let mut members: Vec<Vec<usize>> = vec![Vec::new(); columns];
    for (place, &column) in places.iter().enumerate() {
        members[column].push(place);
    }
    let (mut before, mut after) = (vec![Vec::new(); places.len()], vec![Vec::new(); places.len()]);
    for &(from, to) in links {
        before[to].push(from);
        after[from].push(to);
    }
    let mut rows = vec![0; places.len()];
    for column in &members {
        number(column, &mut rows);
    }
    for sweep in 0..SWEEPS {
        let forward = sweep % 2 == 0;
        let neighbours = if forward { &before } else { &after };
        for step in 0..columns {
            let column = &mut members[if forward { step } else { columns - 1 - step }];
            column.sort_by(|&a, &b| mean(&neighbours[a], &rows, rows[a]).total_cmp(&mean(&neighbours[b], &rows, rows[b])));
            number(column, &mut rows);
        }
    }
    rows
}

/// Moves each band below the one before, as high as its fullest column, and keeps the order within a column and band.
fn into_bands(places: &[usize], bands: &[usize], rows: &[usize]) -> Vec<usize> {
    let mut sorted: Vec<usize> = (0..places.len()).collect();
    sorted.sort_by_key(|&place| (bands[place], places[place], rows[place]));
    let mut moved = vec![0; places.len()];
    let (mut top, mut height, mut row) = (0, 0, 0);
    for (index, &place) in sorted.iter().enumerate() {
        let before = index.checked_sub(1).map(|before| sorted[before]);
        if before.is_some_and(|before| bands[before] != bands[place]) {
            (top, height, row) = (top + height, 0, 0);
        } else if before.is_some_and(|before| places[before] != places[place]) {
            row = 0;
        }
        moved[place] = top + row;
        row += 1;
        height = height.max(row);
    }
    moved
}

fn number(column: &[usize], rows: &mut [usize]) {
    column.iter().enumerate().for_each(|(row, &place)| rows[place] = row);
}

fn mean(neighbours: &[usize], rows: &[usize], own: usize) -> f64 {
    match neighbours.len() {
        0 => own as f64,
        count => neighbours.iter().map(|&place| rows[place] as f64).sum::<f64>() / count as f64,
    }
}
