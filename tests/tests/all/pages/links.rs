//! No link of a document leads nowhere.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap()
}

fn documents() -> Vec<PathBuf> {
    let patterns = [
        "*.md",
        "docs/**/*.md",
        "examples/*/*.md",
        "worker-sdk/**/*.md",
    ];
    let found = patterns.iter().flat_map(|pattern| {
        let pattern = root().join(pattern);
        glob::glob(pattern.to_str().unwrap()).unwrap()
    });
    found
        .map(|path| path.unwrap())
        .filter(|path| !path.to_string_lossy().contains("node_modules"))
        .collect()
}

/// The lines that are not in blocks of code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut in_block = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        in_block ^= fence;
        !in_block && !fence
    })
}

/// What follows `](` up to `)`, outside of code.
fn links(line: &str) -> Vec<&str> {
    let is_code = |place: usize| line[..place].matches('`').count() % 2 == 1;
    let starts = line
        .match_indices("](")
        .filter(|(place, _)| !is_code(*place));
    starts
        .filter_map(|(place, _)| line[place + 2..].split(')').next())
        .collect()
}

/// The anchors of a document, as GitHub and mdBook make them of headings.
fn anchors(text: &str) -> HashSet<String> {
    let mut anchors = HashSet::new();
    for line in prose(text).filter(|line| line.starts_with('#')) {
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let kept = heading
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let mut unique = anchor.clone();
        let mut again = 0;
        while !anchors.insert(unique) {
            again += 1;
            unique = format!("{anchor}-{again}");
        }
    }
    anchors
}

#[test]
fn every_link_of_a_document_leads_somewhere() {
    let mut dead = Vec::new();
    let mut checked = 0;
    for document in documents() {
        let text = std::fs::read_to_string(&document).unwrap();
        for link in prose(&text).flat_map(links) {
            if link.contains("://") {
                continue;
            }
            checked += 1;
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => document.clone(),
                path => document.parent().unwrap().join(path),
            };
            let anchored = anchor.is_empty()
                || std::fs::read_to_string(&target)
                    .is_ok_and(|text| anchors(&text).contains(anchor));
            if !target.exists() || !anchored {
                dead.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert!(dead.is_empty(), "dead links:\n{}", dead.join("\n"));
    assert!(checked > 30, "{checked}");
}

#[test]
fn every_page_is_in_the_summary_once() {
    let summary = std::fs::read_to_string(root().join("docs/SUMMARY.md")).unwrap();
    let mut listed: Vec<&str> = summary.lines().flat_map(links).collect();
    listed.sort_unstable();
    let docs = root().join("docs");
    let pages = documents().into_iter().filter_map(|path| {
        let page = path.strip_prefix(&docs).ok()?.to_str()?.to_owned();
        (page != "SUMMARY.md").then_some(page)
    });
    let mut pages: Vec<String> = pages.collect();
    pages.sort_unstable();
    assert_eq!(listed, pages);
}

#[test]
fn a_link_in_code_is_none() {
    assert_eq!(
        links("see [a](b.md#c) and `[x](y)`, [d](e)"),
        ["b.md#c", "e"]
    );
    let anchors = anchors("# A `b`, c\n```\n# no\n```\n## A b, c\n");
    assert_eq!(
        anchors,
        HashSet::from(["a-b-c", "a-b-c-1"].map(str::to_owned))
    );
}
