//! The rules against a table, and conversions against Avro's own resolution of schemas, by arrow-avro.

use super::*;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int32Type, Int64Type};
use proptest::prelude::*;
use serde_json::{Value as Json, json};

fn leaf(format: &str) -> Field {
    Field::leaf("", format)
}

fn named(name: &str, field: Field) -> Field {
    Field { name: name.into(), ..field }
}

fn list(item: Field) -> Field {
    Field::of("", "+l", vec![named("item", item)])
}

fn map(key: Field, value: Field) -> Field {
    Field::of("", "+m", vec![Field::of("entries", "+s", vec![named("key", key), named("value", value)])])
}

fn record<const N: usize>(fields: [(&str, Field); N]) -> Field {
    Field::of("", "+s", fields.into_iter().map(|(name, field)| named(name, field)).collect())
}

/// The bytes that a value becomes, or why there is no rule.
fn converted(stored: &Field, wanted: &Field, value: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    resolve(stored, wanted).map_err(|mismatch| mismatch.to_string())?.apply(value, &mut out).map_err(|damaged| damaged.to_string())?;
    Ok(out)
}

/// What was written, what reads it, the bytes, and what they become or why not.
type Case<'a> = (Field, Field, &'a [u8], Result<&'a [u8], &'a str>);

#[test]
fn what_becomes_of_types() {
    let point = record([("x", leaf("i")), ("name", leaf("u"))]);
    let point_bytes = [7, 0, 0, 0, 1, 0, 0, 0, b'n'];
    let seven = Field { default: Some(vec![7]), ..leaf("C") };
    let table: Vec<Case<'_>> = vec![
        (leaf("l"), leaf("l"), &[1, 2, 3, 4, 5, 6, 7, 8], Ok(&[1, 2, 3, 4, 5, 6, 7, 8])),
        (leaf("c"), leaf("i"), &[0xfe], Ok(&[0xfe, 255, 255, 255])),
        (leaf("C"), leaf("s"), &[0xfe], Ok(&[0xfe, 0])),
        (leaf("I"), leaf("L"), &[1, 0, 0, 0x80], Ok(&[1, 0, 0, 0x80, 0, 0, 0, 0])),
        (leaf("i"), leaf("g"), &[0xff, 255, 255, 255], Ok(&[0, 0, 0, 0, 0, 0, 0xf0, 0xbf])),
        (leaf("f"), leaf("g"), &[0, 0, 0x80, 0x3f], Ok(&[0, 0, 0, 0, 0, 0, 0xf0, 0x3f])),
        (leaf("u"), leaf("z"), &[1, 0, 0, 0, b'a'], Ok(&[1, 0, 0, 0, b'a'])),
        (leaf("d:9,2"), leaf("d:18,2"), &[0; 16], Ok(&[0; 16])),
        (leaf("s"), leaf("s").or_null(), &[5, 0], Ok(&[1, 5, 0])),
        (leaf("C").or_null(), leaf("S").or_null(), &[1, 5], Ok(&[1, 5, 0])),
        (leaf("C").or_null(), leaf("S").or_null(), &[0], Ok(&[0])),
        (list(leaf("C")), list(leaf("S")), &[2, 0, 0, 0, 5, 6], Ok(&[2, 0, 0, 0, 5, 0, 6, 0])),
        (map(leaf("C"), leaf("b")), map(leaf("S"), leaf("b")), &[1, 0, 0, 0, 5, 1], Ok(&[1, 0, 0, 0, 5, 0, 1])),
        // Fields: another order, one gone, new ones.
        (point.clone(), record([("name", leaf("u")), ("x", leaf("i"))]), &point_bytes, Ok(&[1, 0, 0, 0, b'n', 7, 0, 0, 0])),
        (point.clone(), record([("name", leaf("u"))]), &point_bytes, Ok(&[1, 0, 0, 0, b'n'])),
        (point.clone(), record([("y", leaf("i").or_null()), ("z", seven)]), &point_bytes, Ok(&[0, 7])),
        // No rule.
        (leaf("l"), leaf("u"), &[], Err("its value was int64 and is text now")),
        (leaf("l"), leaf("i"), &[], Err("some would not fit")),
        (leaf("l"), leaf("g"), &[], Err("large ones would be rounded")),
        (leaf("c"), leaf("S"), &[], Err("some would not fit")),
        (leaf("g"), leaf("f"), &[], Err("some would not fit")),
        (leaf("z"), leaf("u"), &[], Err("was bytes and is text now")),
        (leaf("d:9,2"), leaf("d:9,3"), &[], Err("decimal(9, 3)")),
        (leaf("l").or_null(), leaf("l"), &[], Err("one that is absent would have no value")),
        (point.clone(), record([("x", leaf("u"))]), &[], Err("field `x` was int32 and is text now")),
        (point.clone(), record([("y", leaf("i"))]), &[], Err("field `y` is new and of type int32")),
        (record([("a", point.clone())]), record([("a", record([("x", leaf("b"))]))]), &[], Err("field `a.x`")),
        (record([("x", leaf("?"))]), record([]), &[], Err("around which the host changes nothing")),
        // Damage.
        (leaf("c"), leaf("s"), &[], Err("its bytes are not of the type")),
        (leaf("c"), leaf("s"), &[1, 2], Err("its bytes are not of the type")),
        (list(record([])), list(record([("x", leaf("c").or_null())])), &[255, 255, 255, 255], Err("its bytes are not of the type")),
    ];
    for (stored, wanted, value, want) in table {
        match (converted(&stored, &wanted, value), want) {
            (Ok(got), Ok(want)) => assert_eq!(got, want, "{stored} to {wanted}"),
            (Err(got), Err(want)) => assert!(got.contains(want), "{stored} to {wanted}: {got}"),
            (got, want) => panic!("{stored} to {wanted}: {got:?} is not {want:?}"),
        }
    }
}

/// Throws from bytes; ones when they are used up.
struct Dice<'d>(&'d [u8]);

impl Dice<'_> {
    fn throw(&mut self, sides: u8) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 1 % sides };
        self.0 = rest;
        first % sides
    }

    fn record(&mut self, depth: u8) -> Field {
        let fields = (0..1 + self.throw(4)).map(|number| named(&format!("f{number}"), self.field(depth)));
        Field::of("", "+s", fields.collect())
    }

    fn field(&mut self, depth: u8) -> Field {
        let field = match self.throw(if depth > 0 { 10 } else { 7 }) {
            0 => leaf("b"),
            1 => leaf("i"),
            2 => leaf("l"),
            3 => leaf("f"),
            4 => leaf("g"),
            5 => leaf("u"),
            6 => leaf("z"),
            7 => list(self.field(depth - 1)),
            8 => map(leaf("u"), self.field(depth - 1)),
            _ => self.record(depth - 1),
        };
        if self.throw(3) == 0 { field.or_null() } else { field }
    }

    /// Another type, to which there is a rule.
    fn evolve(&mut self, field: &Field) -> Field {
        let mut next = field.clone();
        match (field.format.as_str(), self.throw(3)) {
            ("i", 0) => next.format = "l".into(),
            ("i" | "f", 1) => next.format = "g".into(),
            ("u", 0) => next.format = "z".into(),
            ("+l", _) => next.children[0] = named("item", self.evolve(&field.children[0])),
            ("+m", _) => next.children[0].children[1] = named("value", self.evolve(&field.children[0].children[1])),
            ("+s", _) => next.children = self.evolve_fields(&field.children),
            _ => {}
        }
        next.nullable |= self.throw(4) == 0;
        next
    }

    fn evolve_fields(&mut self, fields: &[Field]) -> Vec<Field> {
        let mut next = Vec::new();
        for field in fields {
            if self.throw(5) > 0 {
                let place = self.throw(next.len() as u8 + 1) as usize;
                next.insert(place, named(&field.name, self.evolve(field)));
            }
        }
        let place = self.throw(next.len() as u8 + 1) as usize;
        let seven = Field { default: Some(7_i64.to_le_bytes().to_vec()), ..leaf("l") };
        match self.throw(3) {
            0 => next.insert(place, named("new", leaf("u").or_null())),
            1 => next.insert(place, named("seven", seven)),
            // Avro's record is not empty here, so that a row can be told from none.
            _ if next.is_empty() => next.push(named("new", leaf("i").or_null())),
            _ => {}
        }
        next
    }

    /// A value in the plain encoding, and in Avro's.
    fn value(&mut self, field: &Field, plain: &mut Vec<u8>, avro: &mut Vec<u8>) {
        if field.nullable {
            let there = self.throw(2);
            plain.push(there);
            zigzag(i64::from(there), avro);
            if there == 0 {
                return;
            }
        }
        let small = i64::from(self.throw(255)) - 128;
        match field.format.as_str() {
            "b" => {
                plain.push(small as u8 & 1);
                avro.push(small as u8 & 1);
            }
            "i" => {
                let value = (small as i32).wrapping_mul(0x0101_0101);
                plain.extend(value.to_le_bytes());
                zigzag(value.into(), avro);
            }
            "l" => {
                let value = small.wrapping_mul(0x0101_0101_0101_0101);
                plain.extend(value.to_le_bytes());
                zigzag(value, avro);
            }
            "f" => [plain, avro].into_iter().for_each(|out| out.extend((small as f32 / 3.0).to_le_bytes())),
            "g" => [plain, avro].into_iter().for_each(|out| out.extend((small as f64 / 3.0).to_le_bytes())),
            "u" | "z" => {
                let text = "é".repeat(small.unsigned_abs() as usize % 4);
                plain.extend((text.len() as u32).to_le_bytes());
                zigzag(text.len() as i64, avro);
                [plain, avro].into_iter().for_each(|out| out.extend(text.as_bytes()));
            }
            "+s" => field.children.iter().for_each(|field| self.value(field, plain, avro)),
            _ => {
                let count = self.throw(4);
                plain.extend(u32::from(count).to_le_bytes());
                if count > 0 {
                    zigzag(count.into(), avro);
                }
                for number in 0..count {
                    if field.format == "+l" {
                        self.value(&field.children[0], plain, avro);
                        continue;
                    }
                    let key = format!("k{number}");
                    plain.extend((key.len() as u32).to_le_bytes());
                    zigzag(key.len() as i64, avro);
                    plain.extend(key.as_bytes());
                    avro.extend(key.as_bytes());
                    self.value(&field.children[0].children[1], plain, avro);
                }
                avro.push(0);
            }
        }
    }
}

fn zigzag(value: i64, out: &mut Vec<u8>) {
    crate::varint::write(out, (value.wrapping_shl(1) ^ (value >> 63)) as u64);
}

/// The Avro schema of a type; its records are named after their path, for the same record has the same name.
fn schema(field: &Field, path: &str) -> Json {
    let inner = match field.format.as_str() {
        "b" => json!("boolean"),
        "i" => json!("int"),
        "l" => json!("long"),
        "f" => json!("float"),
        "g" => json!("double"),
        "u" => json!("string"),
        "z" => json!("bytes"),
        "+l" => json!({"type": "array", "items": schema(&field.children[0], &format!("{path}_i"))}),
        "+m" => json!({"type": "map", "values": schema(&field.children[0].children[1], &format!("{path}_v"))}),
        _ => {
            let fields = field.children.iter().map(|field| {
                let mut told = json!({"name": field.name, "type": schema(field, &format!("{path}_{}", field.name))});
                match (&field.default, field.nullable) {
                    (Some(_), _) => told["default"] = 7.into(),
                    (None, true) => told["default"] = Json::Null,
                    _ => {}
                }
                told
            });
            json!({"type": "record", "name": path, "fields": fields.collect::<Vec<_>>()})
        }
    };
    if field.nullable { json!(["null", inner]) } else { inner }
}

/// An Avro file of one row.
fn file(schema: &Json, row: &[u8]) -> Vec<u8> {
    let schema = schema.to_string();
    let mut bytes = b"Obj\x01".to_vec();
    zigzag(1, &mut bytes);
    for text in ["avro.schema", &schema] {
        zigzag(text.len() as i64, &mut bytes);
        bytes.extend(text.as_bytes());
    }
    bytes.push(0);
    bytes.extend([9; 16]);
    zigzag(1, &mut bytes);
    zigzag(row.len() as i64, &mut bytes);
    bytes.extend(row);
    bytes.extend([9; 16]);
    bytes
}

/// What arrow-avro reads of it for another schema.
fn by_avro(stored: &Field, wanted: &Field, row: &[u8]) -> RecordBatch {
    let reader_schema = arrow_avro::schema::AvroSchema::new(schema(wanted, "r").to_string());
    let reader = arrow_avro::reader::ReaderBuilder::new().with_reader_schema(reader_schema);
    let file = file(&schema(stored, "r"), row);
    let mut reader = reader.build(std::io::Cursor::new(file)).expect("arrow-avro resolves what our rules do");
    reader.next().expect("a batch").expect("it reads what it resolved")
}

/// A value of a column.
fn shown(array: &dyn Array, row: usize) -> Json {
    if array.is_null(row) {
        return Json::Null;
    }
    match array.data_type() {
        DataType::Boolean => array.as_boolean().value(row).into(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).into(),
        DataType::Float32 => f64::from(array.as_primitive::<Float32Type>().value(row)).into(),
        DataType::Float64 => array.as_primitive::<Float64Type>().value(row).into(),
        DataType::Utf8 => array.as_string::<i32>().value(row).into(),
        DataType::Binary => String::from_utf8_lossy(array.as_binary::<i32>().value(row)).into(),
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(row);
            (0..items.len()).map(|row| shown(&items, row)).collect()
        }
        DataType::Map(..) => {
            let entries = array.as_map().value(row);
            (0..entries.len()).map(|row| json!([shown(entries.column(0), row), shown(entries.column(1), row)])).collect()
        }
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns();
            fields.iter().zip(columns).map(|(field, column)| (field.name().clone(), shown(column, row))).collect()
        }
        other => panic!("no column of this test is {other}"),
    }
}

/// A value in the plain encoding.
fn decoded(field: &Field, rest: &mut &[u8]) -> Json {
    fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
        let (bytes, after) = rest.split_first_chunk().expect("there are enough bytes");
        *rest = after;
        *bytes
    }
    if field.nullable && take::<1>(rest) == [0] {
        return Json::Null;
    }
    match field.format.as_str() {
        "b" => (take::<1>(rest) == [1]).into(),
        "i" => i32::from_le_bytes(take(rest)).into(),
        "l" => i64::from_le_bytes(take(rest)).into(),
        "f" => f64::from(f32::from_le_bytes(take(rest))).into(),
        "g" => f64::from_le_bytes(take(rest)).into(),
        "u" | "z" => {
            let length = u32::from_le_bytes(take(rest)) as usize;
            let (text, after) = rest.split_at(length);
            *rest = after;
            String::from_utf8_lossy(text).into()
        }
        "+s" => field.children.iter().map(|field| (field.name.clone(), decoded(field, rest))).collect(),
        "+l" => (0..u32::from_le_bytes(take(rest))).map(|_| decoded(&field.children[0], rest)).collect(),
        _ => {
            let [key, value] = &field.children[0].children[..] else { panic!("a map has keys and values") };
            (0..u32::from_le_bytes(take(rest))).map(|_| json!([decoded(key, rest), decoded(value, rest)])).collect()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn conversions_are_avros(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
        let mut dice = Dice(&bytes);
        let stored = dice.record(2);
        let wanted = Field { nullable: false, children: dice.evolve_fields(&stored.children), ..stored.clone() };
        let (mut plain, mut avro) = (Vec::new(), Vec::new());
        dice.value(&stored, &mut plain, &mut avro);
        let got = converted(&stored, &wanted, &plain).expect("there is a rule");
        let mut rest = &got[..];
        let ours = decoded(&wanted, &mut rest);
        prop_assert!(rest.is_empty());
        let batch = by_avro(&stored, &wanted, &avro);
        let theirs = shown(&arrow::array::StructArray::from(batch), 0);
        prop_assert_eq!(ours, theirs, "{} to {}", stored, wanted);
    }

    #[test]
    fn any_bytes_are_converted_or_damaged(bytes in proptest::collection::vec(any::<u8>(), 0..60), value in proptest::collection::vec(any::<u8>(), 0..30)) {
        let mut dice = Dice(&bytes);
        let stored = dice.field(2);
        let wanted = dice.evolve(&stored);
        let _ = converted(&stored, &wanted, &value);
    }
}

fn state(name: &str, kind: Kind, format: &str, version: u32) -> State {
    State { name: name.into(), kind, plain: true, value: Some(leaf(format)), key: None, version, expires_by: None, migrates: vec![] }
}

fn declared(states: Vec<State>, timers: Vec<Timer>) -> Declared {
    Declared { states, timers, fixed: false }
}

fn timer(name: &str) -> Timer {
    Timer { name: name.into(), clock: Clock::Event }
}

fn none(_: &str) -> bool {
    false
}

#[test]
fn states_keep_their_places_and_cells_their_eras() {
    let first = declared(vec![state("a", Kind::Value, "i", 1), state("b", Kind::Map, "u", 1)], vec![timer("t")]);
    let book = Book::new(&first);
    assert_eq!(Book::read(&book.write()), Ok(Some(book.clone())), "what is written is read");
    // Another order and more: nothing is converted, and the places stay.
    let second =
        declared(vec![state("c", Kind::Value, "l", 1), first.states[1].clone(), first.states[0].clone()], vec![timer("u"), timer("t")]);
    let evolved = book.evolve(&second, &none).expect("it goes on");
    assert_eq!((&evolved.places[..], &evolved.tags[..], evolved.plans.len()), (&[2, 1, 0][..], &[1, 0][..], 0));
    assert_eq!((evolved.report.kept.join(" "), evolved.report.new.join(" ")), ("a b".into(), "c".into()));
    assert_eq!(evolved.book.present().number, 0);
    // `a` becomes wider: cells of era 0 are converted.
    let mut third = second.clone();
    third.states[2] = state("a", Kind::Value, "l", 1);
    let wider = evolved.book.evolve(&third, &none).expect("it goes on");
    assert_eq!(wider.book.eras.iter().map(|era| era.number).collect::<Vec<_>>(), [0, 1]);
    assert!(matches!(&wider.plans[&0][..], [.., Step { from: 0, to: 0, change: Change::Convert(Conversion::Number(..)) }]));
    // A restart in the middle has the same plan; afterwards only the last era is left.
    let again = wider.book.evolve(&third, &none).expect("it goes on");
    assert_eq!((again.plans.clone(), &again.book), (wider.plans.clone(), &wider.book));
    assert_eq!(wider.book.settled().evolve(&third, &none).expect("it goes on").plans.len(), 0);
    assert_eq!(wider.book.settled().join(&wider.book), wider.book);
    // And in the middle yet another plugin: cells of both eras need a way.
    let mut fourth = third.clone();
    fourth.states[2] = State { migrates: vec![Migration { version: 1, ..Migration::default() }], ..state("a", Kind::Value, "u", 2) };
    let migrated = wider.book.evolve(&fourth, &none).expect("it goes on");
    assert_eq!(migrated.plans.keys().copied().collect::<Vec<_>>(), [0, 1]);
    assert!(
        migrated
            .plans
            .values()
            .all(|plan| plan.iter().any(|step| step.from == 0 && matches!(step.change, Change::Migrate { version: 1, .. })))
    );
}

#[test]
fn items_that_change_move_and_those_of_half_converted_cells_are_found() {
    let map = |format: &str, version| declared(vec![state("m", Kind::Map, format, version)], vec![]);
    let first = Book::new(&map("i", 1));
    let second = first.evolve(&map("l", 1), &none).expect("it goes on");
    assert_eq!((&second.places[..], &second.book.columns[..]), (&[1][..], &[false, false][..]));
    assert!(matches!(&second.plans[&0][..], [Step { from: 0, to: 1, change: Change::Convert(Conversion::Number(..)) }]));
    // The same plugin again, in the middle: what is converted stays where it is.
    let again = second.book.evolve(&map("l", 1), &none).expect("it goes on");
    assert_eq!((&again.book, again.places), (&second.book, second.places));
    assert_eq!(again.plans[&0][0], second.plans[&0][0]);
    assert!(again.plans[&0][1..].iter().all(Step::is_none), "{:?}", again.plans[&0]);
    // A third in the middle: a cell of the first era has items of both types, a cell of the second those of its own.
    let mut text = map("u", 2);
    text.states[0].migrates = vec![Migration { version: 1, value: Some(leaf("l")), key: None }];
    let third = second.book.evolve(&text, &none).expect("it goes on");
    let from = |era: u32| third.plans[&era].iter().map(|step| (step.from, step.to)).collect::<Vec<_>>();
    assert_eq!((from(0), from(1)), (vec![(0, 2), (1, 2)], vec![(1, 2)]));
    assert!(third.plans.values().flatten().all(|step| matches!(step.change, Change::Migrate { version: 1, .. })));
    let read = Book::read(&third.book.write()).expect("it is read").expect("it is a book");
    assert_eq!((read.write(), read.eras[2].states[0].former.len()), (third.book.write(), 2), "what is written is read");
    assert_eq!(third.book.settled().evolve(&text, &none).expect("it goes on").plans.len(), 0);
    // A version that a rule has brought before is not migrated afterwards, whichever eras a task still has.
    let mut other = map("i", 1);
    other.states.push(state("v", Kind::Value, "i", 1));
    let base = Book::new(&other);
    (other.states[0].version, other.states[1]) = (2, state("v", Kind::Value, "l", 1));
    let raised = base.evolve(&other, &none).expect("it goes on");
    other.states[0].migrates = vec![Migration { version: 1, ..Migration::default() }];
    for book in [&raised.book, &raised.book.settled()] {
        let same = book.evolve(&other, &none).expect("it goes on");
        assert_eq!((same.places, same.book.present().number), (vec![0, 1], 1));
        assert!(same.plans.values().flatten().all(|step| step.from == 1 || step.is_none()), "{:?}", same.plans);
    }
    // Dropped and named again: what was there belongs to nobody.
    let gone = second.book.evolve(&declared(vec![], vec![]), &|_| true).expect("it goes on");
    let anew = gone.book.evolve(&map("l", 1), &none).expect("it goes on");
    assert_eq!(anew.places, [2]);
    assert!(anew.plans[&0].iter().all(|step| step.change == Change::Clear), "{:?}", anew.plans);
}

#[test]
fn accumulators_of_a_grouping_stay_together() {
    let fixed = |names: &[&str]| {
        let states = names.iter().map(|name| state(name, Kind::Value, "i", 1)).collect();
        Declared { fixed: true, ..declared(states, vec![]) }
    };
    let book = Book::new(&fixed(&["a", "b"]));
    let refused = |names: &[&str]| book.evolve(&fixed(names), &|_| true).expect_err("it is refused")[0].to_string();
    assert!(refused(&["b", "a"]).contains("were of `a`, `b` and are of `b`, `a` now"));
    assert!(refused(&["a"]).contains("are of `a` now"));
    assert_eq!(book.evolve(&fixed(&["a", "b"]), &|_| true).expect("nothing is dropped").plans.len(), 0);
}

#[test]
fn a_takeover_and_its_way_back_are_known_beforehand() {
    let with = |a: State| declared(vec![a], vec![timer("t")]);
    let former = with(state("a", Kind::Map, "i", 1));
    let book = Book::new(&former);
    let look = |next: &Declared| outlook(&book, &former, next, &none).expect("it is taken over");
    let back = |outlook: &Outlook| match &outlook.back {
        Ok(passage) => format!("{:?}", passage.way),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    };
    // The same types; states and timers that are new are dropped on the way back.
    let mut more = former.clone();
    more.states.push(state("b", Kind::Value, "l", 1));
    more.timers.push(timer("u"));
    let kept = look(&more);
    assert_eq!((kept.there.way, back(&kept)), (Way::Kept, "ByRules".into()));
    assert_eq!(kept.back.expect("there is a way").evolved.report.dropped, ["timer u", "b"]);
    // A rule leads there and none back.
    let wider = look(&with(state("a", Kind::Map, "l", 1)));
    assert_eq!(wider.there.way, Way::ByRules);
    assert!(back(&wider).contains("was int64 and is int32 now: some would not fit"), "{}", back(&wider));
    // By migration, and back where the former one says so; a checkpoint alone does not know it.
    let from = |version| vec![Migration { version, ..Migration::default() }];
    let next = with(State { migrates: from(1), ..state("a", Kind::Map, "u", 2) });
    let migrated = look(&next);
    assert_eq!(migrated.there.way, Way::ByMigration);
    assert!(back(&migrated).contains("does not say how to go back"), "{}", back(&migrated));
    let able = with(State { migrates: from(2), ..state("a", Kind::Map, "i", 1) });
    let both = outlook(&book, &able, &next, &none).expect("it is taken over");
    assert_eq!(back(&both), "ByMigration");
    let stored = Book::read(&both.there.evolved.book.write());
    let told = stored.expect("it is read").expect("it is a book").declared();
    assert_eq!((&told.states[0].name[..], told.states[0].version, told.states[0].migrates.len(), told.timers.len()), ("a", 2, 0, 1));
    // Refused, with what to do.
    let refused = outlook(&book, &former, &with(state("a", Kind::Value, "i", 1)), &none).expect_err("it is refused");
    assert_eq!(refused[0].next, "give the new state another name");
}

#[test]
fn what_is_lost_is_refused_unless_it_is_named() {
    let first = declared(vec![state("a", Kind::Value, "i", 2), state("b", Kind::Map, "u", 1)], vec![timer("t")]);
    let book = Book::new(&first);
    let problems = |declared: &Declared| -> Vec<String> {
        let problems = book.evolve(declared, &none).expect_err("it is refused");
        problems.into_iter().map(|problem| problem.to_string()).collect()
    };
    assert_eq!(
        problems(&Declared::default()),
        [
            "timer `t`: the plugin has no such timer any more, and some may be pending",
            "state `a`: the plugin has no such state any more",
            "state `b`: the plugin has no such state any more"
        ]
    );
    let with = |a: State| declared(vec![a, first.states[1].clone()], first.timers.clone());
    let back = problems(&with(state("a", Kind::Value, "i", 1)));
    assert!(back[0].contains("written as version 2, and the plugin has version 1"), "{back:?}");
    assert!(problems(&with(state("a", Kind::List, "i", 2)))[0].contains("was a value and is a list"));
    assert!(problems(&with(state("a", Kind::Value, "u", 2)))[0].contains("was int32 and is text"));
    assert!(problems(&with(State { plain: false, ..state("a", Kind::Value, "i", 3) }))[0].contains("only the plugin can read"));
    assert!(
        book.evolve(
            &with(State { migrates: vec![Migration { version: 2, ..Migration::default() }], ..state("a", Kind::Value, "u", 1) }),
            &none
        )
        .is_ok(),
        "a declared way back"
    );
    let takes = |format: &str| vec![Migration { version: 2, value: Some(leaf(format)), key: None }];
    let wider = book
        .evolve(&with(State { migrates: takes("l"), ..state("a", Kind::Value, "u", 3) }), &none)
        .expect("a rule leads to what it takes");
    let step = &wider.plans[&0][0];
    assert!(step.from == 0 && matches!(step.change, Change::Migrate { before: Conversion::Number(..), .. }));
    let other = problems(&with(State { migrates: takes("b"), ..state("a", Kind::Value, "u", 3) }));
    assert!(other[0].contains("does not take what is stored: its value was int32 and is boolean now"), "{other:?}");
    // Dropped by name: the place is never used again, and old cells are cleared.
    let gone = declared(vec![first.states[0].clone()], vec![]);
    let dropped = book.evolve(&gone, &|name| name != "a").expect("it goes on");
    assert_eq!(dropped.report.dropped, ["timer t", "b"]);
    assert_eq!(dropped.plans[&0][1..], [Step { from: 1, to: 1, change: Change::Clear }]);
    let back = dropped.book.evolve(&first, &none).expect("it goes on");
    assert_eq!((&back.places[..], &back.tags[..]), (&[0, 2][..], &[1][..]));
}
