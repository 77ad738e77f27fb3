//! The service held to `docs/openapi.json` by schemathesis: requests made of the description, and
//! answers that must be as described.

use std::path::Path;
use std::time::Duration;

use gangline_server::http::ROUTES;
use gangline_tests::TestServer;
use gangline_tests::server::TOKEN;
use tokio::process::Command;

/// How long it may take on a slow and busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

#[tokio::test]
async fn answers_are_as_the_description_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap();
    let program = root.join("target/schemathesis/bin/schemathesis");
    if !program.exists() {
        eprintln!("SKIPPED: no schemathesis here; `tests/run schema` brings it");
        return;
    }
    let mut server = TestServer::start().await;
    let dir = tempfile::tempdir().unwrap();
    let mut run = Command::new(program);
    run.arg("run")
        .arg(root.join("docs/openapi.json"))
        .args(["--url", &server.url])
        .args(["--header", &format!("Authorization: Bearer {TOKEN}")])
        // It does not end.
        .args(["--exclude-path", "/v1/events"])
        .args(["--phases", "coverage,fuzzing,stateful"])
        .args(["--max-examples", "10"])
        .arg("--generation-deterministic")
        // Some fields go with others only, which a schema does not say; and an item that was
        // taken back is still to be seen.
        .args(["--checks", "all"])
        .args([
            "--exclude-checks",
            "positive_data_acceptance,use_after_free",
        ])
        .args(["--request-timeout", "60", "--no-color"])
        .env(
            "SCHEMATHESIS_HOOKS",
            root.join("tests/clients/schemathesis_hooks.py"),
        )
        .current_dir(dir.path())
        .kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, run.output()).await;
    let output = output.expect("an end in time").unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{errors}");
    let tested = format!("Tested: {}", ROUTES.len() - 1);
    assert!(said.contains(&tested), "{tested}: {said}");
    server.stop().await;
}
