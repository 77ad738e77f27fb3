//! The Kubernetes client for Python against `gangline up`.

use std::path::Path;
use std::time::Duration;

use gangline_tests::Up;
use tokio::process::Command;

/// How long all that it does may take on a slow and busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

#[tokio::test]
async fn the_python_client_creates_lists_watches_patches_reads_logs_and_deletes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let python = root.join("target/kubernetes-client/bin/python");
    let mut look = Command::new(&python);
    let look = look.args(["-c", "import kubernetes"]).output().await;
    if !look.is_ok_and(|look| look.status.success()) {
        eprintln!("SKIPPED: no Kubernetes client for Python here; `tests/run kubelet` brings it");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let up = Up::start(dir.path()).await;
    let mut script = Command::new(python);
    script
        .arg(root.join("tests/clients/kubernetes_client.py"))
        .envs(up.exports().iter().cloned())
        .kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, script.output()).await;
    let output = output.expect("an end in time").unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert_eq!(output.stdout, b"all as on a cluster\n");
    up.stop().await;
}
