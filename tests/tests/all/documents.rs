//! What the documents list is what the code has.

use std::path::Path;

use gangline_worker::protocol::ErrorCode;

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    std::fs::read_to_string(root.join(path)).unwrap()
}

#[test]
fn every_error_code_has_a_paragraph_and_every_paragraph_a_code() {
    let text = read("docs/errors.md");
    let headings: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("## `")?.strip_suffix('`'))
        .collect();
    assert_eq!(headings, ErrorCode::ALL.map(ErrorCode::as_str));
    for part in text.split("## `").skip(1) {
        let (code, paragraph) = part.split_once("`\n\n").unwrap();
        let status = paragraph.split('.').next().unwrap();
        assert!(
            status.parse::<u16>().is_ok_and(|status| status >= 400),
            "{code}: {status}"
        );
        assert!(paragraph.trim().len() > 40, "{code}");
    }
}

#[test]
fn every_bound_is_in_the_list_with_its_value() {
    let source = read("protocol/src/limits.rs");
    let text = read("docs/limits.md");
    let mut bounds = 0;
    for line in source.split(";\n") {
        let Some((_, bound)) = line.split_once("pub const ") else {
            continue;
        };
        let (name, rest) = bound.split_once(": ").unwrap();
        let (_, value) = rest.split_once(" = ").unwrap();
        let row = format!("| `{name}` | `{value}` | ");
        assert!(text.contains(&row), "docs/limits.md lacks: {row}");
        bounds += 1;
    }
    assert!(bounds > 30);
    assert_eq!(text.matches("\n| `").count(), bounds);
}
