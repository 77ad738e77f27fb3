//! https: who is trusted, and certificates that change.

use std::path::{Path, PathBuf};
use std::time::Duration;

use gangline_tests::api::http_client;
use gangline_tests::gangline::{Left, gangline, run};
use gangline_tests::server::TOKEN;
use tokio::time::Instant;

use super::Process;

/// A CA of its own, with one certificate for this machine.
pub(crate) struct Ca {
    dir: PathBuf,
}

impl Ca {
    /// Makes one with the program `openssl`; nothing where there is none.
    #[expect(
        clippy::print_stderr,
        reason = "who runs the suite must see what did not run"
    )]
    pub(crate) fn make(dir: &Path, name: &str) -> Option<Self> {
        let dir = dir.join(name);
        std::fs::create_dir(&dir).unwrap();
        let openssl = |line: &str| {
            let mut command = std::process::Command::new("openssl");
            command.args(line.split(' ')).current_dir(&dir).output()
        };
        let new = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        let lines = [
            format!("req -x509 {new} -days 9 -subj /CN={name} -keyout ca.key -out ca.pem"),
            format!(
                "req {new} -subj /CN=service -addext subjectAltName=IP:127.0.0.1 -keyout key.pem \
                 -out request.pem"
            ),
            "x509 -req -in request.pem -CA ca.pem -CAkey ca.key -days 9 -copy_extensions copyall \
             -out cert.pem"
                .to_owned(),
        ];
        for line in lines {
            match openssl(&line) {
                Ok(done) => assert!(done.status.success(), "openssl {line}: {done:?}"),
                Err(error) => {
                    eprintln!("SKIPPED: openssl does not run here: {error}");
                    return None;
                }
            }
        }
        Some(Self { dir })
    }

    pub(crate) fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn pem(&self) -> Vec<u8> {
        std::fs::read(self.dir.join("ca.pem")).unwrap()
    }
}

async fn client(url: &str, line: &str, environment: &[(&str, &str)]) -> Left {
    let mut command = gangline(&line.split(' ').collect::<Vec<_>>());
    command
        .env("GANGLINE_URL", url)
        .env("GANGLINE_TOKEN", TOKEN)
        .env_remove("GANGLINE_CA")
        .env_remove("SSL_CERT_FILE")
        .envs(environment.iter().copied());
    run(&mut command).await
}

#[tokio::test]
async fn a_service_with_a_certificate_serves_those_who_trust_its_ca() {
    let dir = tempfile::tempdir().unwrap();
    let Some(ca) = Ca::make(dir.path(), "ours") else {
        return;
    };
    let other = Ca::make(dir.path(), "other").unwrap();
    let (cert, key) = (ca.file("cert.pem"), ca.file("key.pem"));
    let arguments = [&*format!("--tls-cert={cert}"), &*format!("--tls-key={key}")];
    let process = Process::start(&dir.path().join("data"), &arguments).await;
    let url = &process.url;
    assert!(url.starts_with("https://127.0.0.1:"), "{url}");
    let (trusted, foreign) = (ca.file("ca.pem"), other.file("ca.pem"));

    let push = "push numbers --range 1..3 --seal";
    let left = client(url, push, &[("GANGLINE_CA", &trusted)]).await;
    assert_eq!(left.code, Some(0), "{}", left.stderr);
    let status = format!("get queue numbers -o name --ca {trusted}");
    for (line, environment) in [
        (&*status, &[][..]),
        ("get queue numbers -o name", &[("SSL_CERT_FILE", &*trusted)]),
    ] {
        let left = client(url, line, environment).await;
        assert_eq!(left.code, Some(0), "{}", left.stderr);
    }
    for environment in [&[][..], &[("GANGLINE_CA", &*foreign)]] {
        let left = client(url, "get queues", environment).await;
        assert_eq!(left.code, Some(69), "{}", left.stderr);
        assert!(left.stderr.contains("--ca FILE names"), "{}", left.stderr);
    }
    let wrong = [("GANGLINE_CA", &*key)];
    let left = client(url, "get queues", &wrong).await;
    assert_eq!(left.code, Some(2), "{}", left.stderr);
    assert!(
        left.stderr.contains(&format!("--ca {key}: ")) && left.stderr.contains("no certificate"),
        "{}",
        left.stderr
    );
    let plain = url.replace("https", "http");
    let left = client(&plain, "get queues", &[]).await;
    assert_eq!(left.code, Some(69), "{}", left.stderr);

    let worker = [("GANGLINE_QUEUE", "numbers"), ("GANGLINE_CA", &*trusted)];
    let left = client(url, "work -- echo", &worker).await;
    assert_eq!(left.code, Some(0), "{}", left.stderr);
}

#[tokio::test]
async fn a_certificate_that_changes_is_shown_to_the_next_that_comes() {
    let dir = tempfile::tempdir().unwrap();
    let Some(first) = Ca::make(dir.path(), "first") else {
        return;
    };
    let second = Ca::make(dir.path(), "second").unwrap();
    let (cert, key) = (dir.path().join("cert"), dir.path().join("key"));
    let install = |name: &str, of: &Ca, to: &Path| {
        std::fs::copy(of.file(name), to).unwrap();
    };
    install("cert.pem", &first, &cert);
    install("key.pem", &first, &key);
    let arguments = [
        &*format!("--tls-cert={}", cert.display()),
        &*format!("--tls-key={}", key.display()),
    ];
    let mut process = Process::start(&dir.path().join("data"), &arguments).await;
    let probe = format!("{}/healthz", process.url);
    // A new connection each time.
    let is_trusted = async |ca: &Ca| http_client(&ca.pem()).get(&probe).send().await.is_ok();
    assert!(is_trusted(&first).await && !is_trusted(&second).await);

    install("cert.pem", &second, &cert);
    let said = process.stderr.next_line().await.unwrap().unwrap();
    assert!(said.contains("the old one goes on"), "{said}");
    assert!(is_trusted(&first).await, "half of a pair is not used");

    install("key.pem", &second, &key);
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_trusted(&second).await {
        assert!(Instant::now() < deadline, "the new certificate never came");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!is_trusted(&first).await);
}

#[tokio::test]
async fn files_that_are_not_to_be_used_are_named_with_their_flag() {
    let dir = tempfile::tempdir().unwrap();
    let Some(ca) = Ca::make(dir.path(), "ours") else {
        return;
    };
    let nonsense = dir.path().join("nonsense");
    std::fs::write(&nonsense, "nonsense").unwrap();
    let (cert, key) = (ca.file("cert.pem"), ca.file("key.pem"));
    let (other, missing) = (ca.file("ca.key"), ca.file("missing"));
    let nonsense = nonsense.display().to_string();
    for (cert, key, wanted) in [
        (
            &missing,
            &key,
            "--tls-cert: DIR/missing cannot be read: No such file",
        ),
        (
            &cert,
            &missing,
            "--tls-key: DIR/missing cannot be read: No such file",
        ),
        (
            &nonsense,
            &key,
            "--tls-cert: nonsense has no certificate in PEM form",
        ),
        (
            &cert,
            &nonsense,
            "--tls-key: nonsense has no private key in PEM form",
        ),
        (
            &cert,
            &other,
            "--tls-key: DIR/ca.key is not the key of the certificate in DIR/cert.pem",
        ),
    ] {
        let data = dir.path().join("data");
        let mut command = gangline(&["server", "--listen=127.0.0.1:0"]);
        command.arg(format!("--data-dir={}", data.display())).args([
            "--tls-cert",
            cert,
            "--tls-key",
            key,
        ]);
        let left = run(&mut command).await;
        assert_eq!(left.code, Some(2), "{}", left.stderr);
        let said = left.stderr.replace(&ca.dir.display().to_string(), "DIR");
        let said = said.replace(&nonsense, "nonsense");
        assert!(said.contains(wanted), "{wanted}: {said}");
        assert!(
            said.contains("hint: --tls-cert FILE and --tls-key FILE"),
            "{said}"
        );
        assert!(!data.exists(), "nothing was opened before");
    }
    let left = run(&mut gangline(&["server", "--tls-cert", &cert])).await;
    assert_eq!(left.code, Some(2));
    assert!(left.stderr.contains("--tls-key <FILE>"), "{}", left.stderr);
}
