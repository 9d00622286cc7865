use super::*;

fn lines<'a>(lines: &[&'a str]) -> Vec<Line<'a>> {
    lines.iter().map(|line| Line { line }).collect()
}

fn words(words: &[&str]) -> Vec<Word> {
    words.iter().map(|word| Word { word: (*word).to_owned() }).collect()
}

#[test]
fn a_filter_gives_origins_alone() {
    let run = testing::run::<keep>(lines(&["a", "", "b"]));
    assert_eq!(run.origins(""), [0, 2]);
    assert!(run.opened().outputs[0].adds.is_empty());
    assert_eq!(run.opened().outputs[0].passes, [0]);
}

#[test]
fn a_row_that_fails_leaves_no_output_and_no_metric() {
    let run = testing::run::<parse>(lines(&["1", "x", "22"]));
    assert_eq!(run.rows::<Length>(""), [Length { length: 1 }, Length { length: 22 }]);
    assert_eq!(run.origins(""), [0, 2]);
    assert_eq!(run.errors, [(1, "invalid digit found in string".to_owned())]);
    assert_eq!((run.metric("seen"), run.metric("lengths"), run.metric("last")), (2.0, 3.0, 22.0));
}

#[test]
fn flat_maps_repeat_and_skip_origins() {
    let run = testing::run::<split>(lines(&["a b", "", "c"]));
    assert_eq!(run.rows::<Word>(""), words(&["a", "b", "c"]));
    assert_eq!(run.origins(""), [0, 0, 2]);
    let run = testing::run::<letters>(lines(&["ab", "no!", "c"]));
    assert_eq!((run.rows::<Word>(""), run.origins("")), (words(&["a", "b", "c"]), vec![0, 0, 2]));
    assert_eq!(run.errors, [(1, "no shouting".to_owned())]);
    let run = testing::run::<first_word>(lines(&["a b", " ", "c"]));
    assert_eq!((run.rows::<Word>(""), run.origins("")), (words(&["a", "c"]), vec![0, 2]));
}

#[test]
fn each_variant_is_an_output() {
    let run = testing::run::<route>(lines(&["7", "seven", "", "8"]));
    assert_eq!(run.rows::<Length>(""), [Length { length: 7 }, Length { length: 8 }]);
    assert_eq!((run.origins(""), run.origins("other"), run.origins("empty")), (vec![0, 3], vec![1], vec![2]));
    assert_eq!(run.rows::<Word>("other"), words(&["seven"]));
}

#[test]
fn a_config_is_checked_and_has_defaults() {
    let run = testing::run_with::<truncate>(json(r#"{"limit": 2, "case": "upper"}"#), lines(&["abc", "ab"]));
    assert_eq!(run.rows::<Cut>(""), [Cut { line: "AB...".into() }, Cut { line: "AB".into() }]);
    assert!(run.opened().outputs[0].passes.is_empty(), "the added column replaces the one of its name");
    for (config, message) in [
        (r#"{}"#, "truncate: config: field `limit` is missing"),
        (r#"{"limit": -1}"#, "truncate: config.limit must be a whole number from 0 to 4294967295, not -1"),
        (r#"{"limit": 1, "case": "title"}"#, "truncate: config.case must be one of upper, lower, not \"title\""),
        (r#"{"limt": 1}"#, "truncate: config: unknown field `limt`, did you mean `limit`? The fields are limit, mark, case"),
    ] {
        let failure = testing::try_run::<truncate>(json(config), lines(&[])).expect_err(config);
        assert_eq!(failure.message, message);
    }
}

fn json(text: &str) -> testing::Value {
    text.parse().expect("JSON")
}

#[test]
fn event_times_are_read_and_set() {
    let run = testing::run::<an_hour_later>(lines(&["a", "b"]));
    assert_eq!(run.rows::<Length>(""), [Length { length: 0 }, Length { length: 1_000_000 }]);
    assert_eq!(run.event_times(""), [Timestamp(3_600_000_000), Timestamp(3_601_000_000)]);
}

#[test]
fn every_type_comes_back_as_it_went() {
    let full = Everything {
        flag: true,
        tiny: -8,
        small: -16,
        medium: -32,
        large: i64::MIN,
        unsigned: u32::MAX,
        single: 1.5,
        double: -2.25,
        text: "zażółć".into(),
        bytes: vec![0, 255],
        at: Timestamp(-1),
        day: Date(-1),
        price: Decimal(-1999),
        maybe: Some(1),
        maybe_text: Some("x".into()),
        maybe_flag: Some(true),
        list: vec![1, 2, 3],
        maybe_list: Some(vec!["a".into(), String::new()]),
        map: BTreeMap::from([("a".into(), 1), ("b".into(), 2)]),
        pairs: vec![(2, "b".into()), (1, "a".into())],
        point: Point { x: 0.5, label: Some("p".into()) },
        maybe_point: Some(Point { x: 1.0, label: None }),
        odd_name: 3,
    };
    let empty = Everything {
        flag: false,
        text: String::new(),
        bytes: vec![],
        maybe: None,
        maybe_text: None,
        maybe_flag: None,
        list: vec![],
        maybe_list: None,
        map: BTreeMap::new(),
        pairs: vec![],
        point: Point { x: f64::INFINITY, label: None },
        maybe_point: None,
        ..full.clone()
    };
    // More than eight of each, so that bitmaps have several bytes and nulls come first, last and between.
    let rows: Vec<_> = (0..37).map(|row| if row % 3 == 1 { full.clone() } else { empty.clone() }).collect();
    let run = testing::run::<everything>(rows.clone());
    assert_eq!(run.rows::<Everything>(""), rows);
    assert!(run.errors.is_empty());
    let none = testing::run::<everything>(Vec::<Everything>::new());
    assert!(none.rows::<Everything>("").is_empty());
}

#[derive(Row)]
struct MaybeLine {
    line: Option<String>,
}

#[test]
fn a_null_is_a_row_error_where_the_row_has_no_option() {
    let rows = || [Some("ab"), None, Some("c")].map(|line| MaybeLine { line: line.map(str::to_owned) });
    let message = "column `line` is null, and the transform does not take nulls in it";
    for run in [testing::run::<keep>(rows()), testing::run::<measure>(rows())] {
        assert_eq!(run.origins(""), [0, 2]);
        assert_eq!(run.errors, [(1, message.to_owned())]);
    }
}

#[test]
fn a_missing_column_is_named() {
    let failure = testing::try_run::<keep>(json("{}"), words(&["a"])).expect_err("there is no line");
    assert_eq!(failure.message, "keep: column `line` (a string) is missing; the nearest are `word`");
    #[derive(Row)]
    struct NumberLine {
        line: i64,
    }
    let failure = testing::try_run::<keep>(json("{}"), [NumberLine { line: 1 }]).expect_err("it is no string");
    assert_eq!(failure.message, "keep: column `line` is int64, but a string is wanted");
}

#[test]
fn integers_widen() {
    #[derive(Row)]
    struct Narrow {
        length: i16,
    }
    #[transform]
    fn twice(row: Length) -> Length {
        Length { length: row.length * 2 }
    }
    assert_eq!(testing::run::<twice>([Narrow { length: -7 }]).rows::<Length>(""), [Length { length: -14 }]);
}

#[test]
fn side_inputs_are_columns_of_the_row() {
    let row = |user, segment, blocked: &[&'static str]| Purchase {
        user,
        amount: 5,
        segment,
        rate: 3,
        blocked: blocked.iter().copied().map(Some).collect(),
    };
    let run = testing::run::<price>([row(Some("ann"), Some("pro"), &["eve"]), row(Some("eve"), None, &["eve"]), row(None, None, &[])]);
    let priced = |segment: &str| Priced { segment: segment.to_owned(), price: 15 };
    assert_eq!(run.rows::<Priced>(""), [priced("pro"), priced("unknown")]);
    assert_eq!(run.errors, [(1, "eve is blocked".to_owned())]);
}
