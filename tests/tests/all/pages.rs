//! The pages of `docs/`: every manifest and every command in them, run as they stand.
//!
//! A block of the language `console` shows a terminal: commands after `$ `, and what they print.
//! A block whose first line is a comment with the name of a file is that file.

mod kubectl;
mod links;
mod mistakes;
mod page;
mod terminal;

use std::sync::Arc;
use std::time::Duration;

use gangline_tests::Up;
use k8s_openapi::api::batch::v1::Job;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use page::{Page, Shown, Terminal, docs};
use terminal::{Difference, Environment, Outcome, environment};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Sections of a page that run at a time: most of them wait most of the time.
const SECTIONS_AT_A_TIME: usize = 4;

/// Makes a test of each page.
macro_rules! pages {
    ($($test:ident: $page:literal, $at_a_time:expr;)*) => {
        const PAGES: &[&str] = &[$($page),*];
        $(#[tokio::test]
        async fn $test() {
            run_page($page, $at_a_time).await;
        })*
    };
}

pages! {
    every_command_of_the_quick_start_prints_what_it_shows: "quick-start.md", 1;
    every_command_of_the_concepts_prints_what_it_shows: "concepts.md", 1;
    every_command_of_an_operator_prints_what_the_page_shows: "operating.md", 1;
    every_answer_to_a_question_is_as_the_page_shows: "faq.md", 1;
    whoever_comes_from_elsewhere_sees_what_the_page_shows: "coming-from.md", 1;
    every_program_that_is_a_worker_works_as_the_page_shows: "workers.md", 1;
    every_pattern_works_as_the_page_shows: "patterns.md", 1;
    every_call_with_curl_is_answered_as_the_page_shows: "http.md", 1;
    every_mistake_is_said_as_the_page_shows: "troubleshooting.md", 1;
    every_command_of_the_guide_to_jobs_prints_what_it_shows: "jobs.md", SECTIONS_AT_A_TIME;
    // Its commands are for the manifests that lie beside it.
    every_command_of_the_examples_prints_what_it_shows: "../examples/kubernetes-docs/README.md", 1;
    // Its commands list all that there is.
    every_command_of_kubectl_prints_what_it_shows: "kubectl.md", 1;
}

#[test]
fn every_page_that_shows_a_terminal_is_run() {
    let pages = std::fs::read_dir(docs()).unwrap();
    let names = pages.map(|page| page.unwrap().file_name().into_string().unwrap());
    let mut shown: Vec<String> = names
        .filter(|name| name.ends_with(".md") && Page::read(name).shows_a_terminal())
        .collect();
    shown.sort_unstable();
    let mut run: Vec<&str> = PAGES
        .iter()
        .copied()
        .filter(|name| !name.contains('/'))
        .collect();
    run.sort_unstable();
    assert_eq!(shown, run);
}

#[test]
fn every_file_of_a_page_is_used_where_it_stands() {
    let mut files = 0;
    for name in PAGES {
        let page = Page::read(name);
        let all: Vec<_> = page.sections.iter().collect();
        for (file, _) in &page.beside {
            let mut terminals = all.iter().flat_map(|section| &section.terminals);
            let is_used = terminals.any(|terminal| terminal.uses(file));
            assert!(is_used, "{name}: nothing uses {file}");
            files += 1;
        }
        for (section, place) in page.sections.iter().zip(0..) {
            // What stands in one directory may be used by what follows.
            let uses = if page.in_order {
                &all[place..]
            } else {
                &all[place..=place]
            };
            for (file, _) in &section.files {
                let mut terminals = uses.iter().flat_map(|section| &section.terminals);
                let is_used = terminals.any(|terminal| terminal.uses(file));
                assert!(
                    is_used,
                    "{name}: nothing under {:?} uses {file}",
                    section.title
                );
                files += 1;
            }
        }
    }
    assert!(files > 40, "{files}");
}

#[expect(clippy::print_stderr, reason = "what is skipped is said")]
async fn run_page(name: &str, sections_at_a_time: usize) {
    let page = Page::read(name);
    let home = tempfile::tempdir().unwrap();
    let alone = environment(home.path());
    let up = Up::start(&home.path().join("up")).await;
    let with_up = [alone.clone(), up.exports().to_vec()].concat();
    let outcome = if page.in_order {
        in_order(&page, &with_up).await
    } else {
        beside_each_other(page, &alone, &with_up, sections_at_a_time).await
    };
    stop(up).await;
    let Outcome {
        differ,
        mut missing,
    } = outcome;
    missing.sort_unstable();
    missing.dedup();
    for program in missing {
        eprintln!("SKIPPED: what docs/{name} shows of {program}, which is not on this machine");
    }
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        return update(name, &differ);
    }
    let differ: Vec<String> = differ.iter().map(ToString::to_string).collect();
    assert!(differ.is_empty(), "docs/{name}\n{}", differ.join("\n\n"));
}

/// Puts what was printed in the place of what the page has, for a person to look through.
fn update(name: &str, differ: &[Difference]) {
    let mut text = std::fs::read_to_string(docs().join(name)).unwrap();
    for Difference { shown, printed } in differ {
        let before = shown.to_string();
        let lines = printed.lines().map(str::to_owned).collect();
        let command = shown.command.clone();
        text = text.replacen(&before, &Shown { command, lines }.to_string(), 1);
    }
    std::fs::write(docs().join(name), text).unwrap();
}

/// Runs one section after the other in one directory, as long as nothing is missing.
async fn in_order(page: &Page, environment: &Environment) -> Outcome {
    let dir = tempfile::tempdir().unwrap();
    let mut outcome = Outcome::default();
    for section in &page.sections {
        let Outcome { differ, missing } = section.run(dir.path(), |_| environment.clone()).await;
        outcome.differ.extend(differ);
        outcome.missing.extend(missing);
        if !outcome.missing.is_empty() {
            break;
        }
    }
    outcome
}

/// Runs sections in directories of their own; only those that speak of a cluster see one.
async fn beside_each_other(
    page: Page,
    alone: &Environment,
    with_up: &Environment,
    at_a_time: usize,
) -> Outcome {
    let slots = Arc::new(Semaphore::new(at_a_time));
    let mut running = JoinSet::new();
    for mut section in page.sections {
        section.files.extend(page.beside.clone());
        let (slots, alone, with_up) = (slots.clone(), alone.clone(), with_up.clone());
        running.spawn(async move {
            let _slot = slots.acquire().await.unwrap();
            let dir = tempfile::tempdir().unwrap();
            let environment = |terminal: &Terminal| {
                let stays = terminal.needs_kubectl();
                if stays {
                    with_up.clone()
                } else {
                    alone.clone()
                }
            };
            section.run(dir.path(), environment).await
        });
    }
    let mut outcome = Outcome::default();
    for section in running.join_all().await {
        outcome.differ.extend(section.differ);
        outcome.missing.extend(section.missing);
    }
    outcome
}

/// Ends what is left in the cluster, which would outlive it, and then the cluster.
async fn stop(up: Up) {
    let jobs: Api<Job> = Api::all(up.client().await);
    let all = ListParams::default();
    for job in jobs.list(&all).await.unwrap() {
        let namespace = job.metadata.namespace.unwrap();
        let jobs: Api<Job> = Api::namespaced(up.client().await, &namespace);
        let name = job.metadata.name.unwrap();
        let _ = jobs.delete(&name, &DeleteParams::foreground()).await;
    }
    while !jobs.list(&all).await.unwrap().items.is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    up.stop().await;
}
