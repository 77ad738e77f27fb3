//! `push`, `get` and `wait`: clients of the queue service.

use gangline_tests::gangline::{Left, end_of, gangline, run, run_with_stdin};
use gangline_tests::server::TOKEN;
use gangline_tests::{Api, Queue, TestServer};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

/// A service of its own, so that lists show what a test has made.
struct Service {
    server: TestServer,
    api: Api,
}

impl Service {
    async fn start() -> Self {
        let server = TestServer::start().await;
        let api = Api::new(&server.url, Some(TOKEN));
        Self { server, api }
    }

    fn command(&self, line: &str) -> Command {
        let mut command = gangline(&line.split(' ').collect::<Vec<_>>());
        command
            .env("GANGLINE_URL", &self.server.url)
            .env("GANGLINE_TOKEN", TOKEN);
        command
    }

    fn queue(&self, name: &str) -> Queue {
        Queue {
            api: self.api.clone(),
            name: name.to_owned(),
        }
    }

    async fn run(&self, line: &str) -> Left {
        run(&mut self.command(line)).await
    }

    /// Runs a command that reads this.
    async fn feed(&self, line: &str, stdin: &[u8]) -> Left {
        run_with_stdin(&mut self.command(line), stdin).await
    }

    /// Makes a dead item of the first one of a queue, and a done one of the second.
    async fn work_on(&self, queue: &str) {
        let program = "test $1 != 1 || { echo no ones >&2; exit 9; }; echo $1";
        let mut worker = gangline(&["work", "--dead-codes=9", "--", "sh", "-c", program, "sh"]);
        worker
            .env("GANGLINE_URL", &self.server.url)
            .env("GANGLINE_TOKEN", TOKEN)
            .env("GANGLINE_WORKER", "rex")
            .env("GANGLINE_QUEUE", queue);
        assert_eq!(run(&mut worker).await.code, Some(0));
    }
}

/// Replaces what differs from run to run: ages, times, ids.
fn steady(text: &str) -> String {
    let is_age = |word: &str| {
        let number = word.strip_suffix('s').unwrap_or("x");
        number.parse::<u64>().is_ok()
    };
    let words = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let steady = words
            .iter()
            .map(|word| if is_age(word) { "AGE" } else { word });
        steady.collect::<Vec<_>>().join(" ")
    };
    text.lines().map(words).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn a_push_says_how_the_queue_is_and_what_comes_next() {
    let service = Service::start().await;
    let left = service.feed("push images", b"a\nb c\n").await;
    assert_eq!((left.code, &*left.stdout), (Some(0), ""));
    insta::assert_snapshot!(left.stderr, @r"
    images: 2 items added
    images is open: 2 ready; when no more come, seal it: gangline seal images
    ");
    let left = service.feed("push images --seal", b"b c\nd\n").await;
    insta::assert_snapshot!(left.stderr, @r"
    images: 1 item added, 1 were there before
    images is sealed: 3 ready; to wait for it: gangline wait images
    ");
    let left = service.feed("push images", b"e\n").await;
    assert_eq!(left.code, Some(1));
    insta::assert_snapshot!(left.stderr, @r"
    gangline: queue images is sealed: it takes no more items from outside
    hint: gangline get queues shows how queues are; a new batch needs a queue of another name
    ");
}

#[tokio::test]
async fn what_came_of_a_command_is_a_sentence_or_all_that_there_is() {
    let service = Service::start().await;
    service.run("push images --range 1..2").await;
    for (line, wanted) in [
        (
            "pause images -o text",
            "images is open and paused: 2 ready; to go on: gangline resume images\n",
        ),
        (
            "resume images -o text",
            "images is open: 2 ready; when no more come, seal it: gangline seal images\n",
        ),
        (
            "seal images -o text",
            "images is sealed: 2 ready; to wait for it: gangline wait images\n",
        ),
        (
            "stop images -o text",
            "images is over: stopped, 0 done, 0 dead, 0 cancelled, 2 abandoned\n",
        ),
    ] {
        let left = service.run(line).await;
        assert_eq!((left.code, &*left.stdout), (Some(0), wanted), "{line}");
    }
    let left = service.run("wait images -o yaml").await;
    assert_eq!(left.code, Some(1), "some are abandoned");
    assert!(left.stdout.contains("\nphase: stopped\n"), "{left:?}");
    // Without a terminal it is for a program.
    let left = service.run("wait images").await;
    let certificate: Value = serde_json::from_str(&left.stdout).unwrap();
    assert_eq!(certificate["counts"]["abandoned"], 2);
    let left = service.run("wait job/images -o json").await;
    assert_eq!(left.code, Some(2));
    insta::assert_snapshot!(left.stderr, @r"
    gangline: --output is for queues, and job/images is none
    hint: gangline get job images -o yaml
    ");
}

#[tokio::test]
async fn whoever_waits_is_told_what_is_missing() {
    let service = Service::start().await;
    service.run("push images --range 1..2").await;
    let mut waiting = service.command("wait images").spawn().unwrap();
    let mut stderr = BufReader::new(waiting.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).await.unwrap();
    assert!(
        line.starts_with("0 of 2 items, ") && line.ends_with("0 leased, not sealed, no worker\n"),
        "{line}"
    );
    waiting.kill().await.unwrap();
}

#[tokio::test]
async fn items_come_from_csv_with_the_fields_of_its_header() {
    let service = Service::start().await;
    let csv = b"name,size\n\"a, b\",1\nc,\"2\n3\"\n";
    let left = service.feed("push rows --csv --seal", csv).await;
    assert_eq!(left.code, Some(0), "{}", left.stderr);
    let left = service.run("get items rows -o json").await;
    let items: Vec<Value> = serde_json::from_str(&left.stdout).unwrap();
    let payloads: Vec<&Value> = items.iter().map(|item| &item["payload"]).collect();
    assert_eq!(
        json!(payloads),
        json!([{"name": "a, b", "size": "1"}, {"name": "c", "size": "2\n3"}])
    );
    let left = service
        .feed("push broken --csv --seal", b"a,b\n1,2\n3\n")
        .await;
    assert_eq!(left.code, Some(2));
    insta::assert_snapshot!(left.stderr, @r"
    gangline: stdin, line 3, column 1: 1 fields, and the header names 2
    hint: the first line names the fields; a value with a comma, a quote or a line end stands in quotes, a quote in it twice
    ");
    let status = service.queue("broken").get("").await;
    assert_ne!(status.body["phase"], "sealed", "{}", status.body);
}

#[tokio::test]
async fn queues_are_shown_in_every_format() {
    let service = Service::start().await;
    let left = service.run("get queues").await;
    assert_eq!((left.code, &*left.stdout), (Some(0), ""));
    assert_eq!(left.stderr, "gangline: there are no queues\n");
    service.run("push images --range 1..2 --seal").await;
    service.run("push a-longer-name --range 1..3").await;
    let left = service.run("get queues").await;
    insta::assert_snapshot!(steady(&left.stdout), @r"
    NAME            PHASE    READY   DELAYED   LEASED   DONE   DEAD   AGE
    a-longer-name   open     3       0         0        0      0      AGE
    images          sealed   2       0         0        0      0      AGE
    ");
    let wide = service.run("get queue images -o wide").await;
    assert!(
        wide.stdout.contains("WORKERS   RATE     ETA"),
        "{}",
        wide.stdout
    );
    let names = service.run("get q -o name").await;
    assert_eq!(names.stdout, "queue/a-longer-name\nqueue/images\n");
    let all = service.run("get queues -o json").await;
    let all: Value = serde_json::from_str(&all.stdout).unwrap();
    let one = service.run("get queue images -o json").await;
    let one: Value = serde_json::from_str(&one.stdout).unwrap();
    // A queue without a rate gets one as it grows older.
    let lasting = |queue: &Value| {
        let mut queue = queue.clone();
        queue.as_object_mut().unwrap().remove("rate");
        queue
    };
    assert_eq!(lasting(&all[1]), lasting(&one));
    assert_eq!(one["counts"]["ready"], 2);
    let yaml = service.run("get queue images -o yaml").await;
    assert!(yaml.stdout.contains("\nphase: sealed\n"), "{}", yaml.stdout);
    let none = service.run("get queues -n elsewhere -o json").await;
    assert_eq!(none.stdout, "[]\n");
}

#[tokio::test]
async fn workers_items_and_dead_items_are_those_of_a_queue() {
    let service = Service::start().await;
    service.run("push numbers --range 1..2 --seal").await;
    let left = service.run("get items numbers").await;
    insta::assert_snapshot!(steady(&left.stdout), @r"
    ID   STATE   KEY   ATTEMPTS   WORKER   SINCE
    1    ready   1:1   0          <none>   <none>
    2    ready   1:2   0          <none>   <none>
    ");
    service.work_on("numbers").await;
    let left = service.run("get dead numbers -o wide").await;
    insta::assert_snapshot!(steady(&left.stdout), @r"
    ID   KEY   ATTEMPTS   SINCE   ERROR                  PAYLOAD
    1    1:1   1          AGE      exit code 9: no ones   1
    ");
    let left = service.run("get errors numbers").await;
    insta::assert_snapshot!(steady(&left.stdout), @r"
    ITEMS   FIRST   LAST   EXAMPLE   ERROR
    1       AGE      AGE     1         exit code 9: no ones
    ");
    let left = service.run("get attempts numbers").await;
    insta::assert_snapshot!(steady(&left.stdout), @r"
    ID   KEY   ATTEMPT   OUTCOME   WORKER   TOOK   SINCE   ERROR
    1    1:1   1         dead      rex      AGE     AGE      exit code 9: no ones
    ");
    let left = service
        .run("get attempts numbers --state dead -o json")
        .await;
    let all: Value = serde_json::from_str(&left.stdout).unwrap();
    let (id, end) = (&all[0]["id"], &all[0]["outcome"]);
    assert_eq!(
        (id, end, &all[1]),
        (&json!(1), &json!("dead"), &Value::Null)
    );
    let left = service.run("get dead numbers -o yaml").await;
    assert!(left.stdout.contains("outcome: dead"), "{}", left.stdout);
    let left = service.run("get errors numbers -o json").await;
    assert!(left.stdout.contains("\"same\": true"), "{}", left.stdout);
    let left = service.run("get items numbers --state done -o name").await;
    assert_eq!(left.stdout, "item/2\n");
    let left = service.run("get items numbers --limit 1 -o name").await;
    assert_eq!(left.stdout, "item/1\n");
    assert_eq!(
        left.stderr,
        "gangline: only the first 1 items; --limit gives more\n"
    );
    let queue = service.queue("open");
    queue.push(&[json!(12_345_678_901_234_567_890_u64)]).await;
    queue.open("rex", 1).await;
    let left = service.run("get workers open").await;
    insta::assert_snapshot!(steady(&left.stdout), @r"
    NAME   HOLDS   DONE   IDLE     AGE
    rex    1       0      <none>   AGE
    ");
    let left = service.run("get items open -o json").await;
    assert!(
        left.stdout.contains("12345678901234567890"),
        "{}",
        left.stdout
    );
}

#[tokio::test]
async fn what_cannot_be_shown_is_said_with_what_to_do() {
    let service = Service::start().await;
    let left = service.run("get images").await;
    assert_eq!(left.code, Some(2));
    assert!(
        left.stderr.contains("gangline get queue images"),
        "{}",
        left.stderr
    );
    let left = service.run("get items").await;
    assert_eq!(left.code, Some(2));
    insta::assert_snapshot!(left.stderr, @r"
    gangline: items are those of a queue, and none is named
    hint: gangline get items QUEUE
    ");
    let left = service.run("get queue nothing").await;
    assert_eq!(left.code, Some(1));
    insta::assert_snapshot!(left.stderr, @r"
    gangline: queue nothing does not exist
    hint: gangline get queues shows those that there are; gangline push makes one
    ");
    let left = service.run("get queues --token another").await;
    assert_eq!(left.code, Some(77), "{}", left.stderr);
    assert!(left.stderr.contains("hint: "), "{}", left.stderr);
}

#[tokio::test]
async fn a_watched_queue_is_shown_again_when_it_has_changed() {
    use tokio::io::{AsyncBufReadExt, BufReader};
    let service = Service::start().await;
    service.run("push numbers --range 1..2").await;
    let mut child = service
        .command("get queue numbers --watch")
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = async || lines.next_line().await.unwrap().unwrap();
    assert!(next().await.starts_with("NAME"));
    assert!(next().await.contains("open    2"));
    service.run("push numbers --range 3..3").await;
    assert!(next().await.contains("open    3"));
    service.run("seal numbers").await;
    assert!(next().await.contains("sealed"));
    child.kill().await.unwrap();
}

#[tokio::test]
async fn a_wait_ends_with_the_queue_and_its_code_says_how() {
    let service = Service::start().await;
    service.run("push numbers --range 1..2 --seal").await;
    let waiting = service.command("wait numbers").spawn().unwrap();
    service.work_on("numbers").await;
    let left = end_of(waiting).await;
    assert_eq!(left.code, Some(1), "{}", left.stderr);
    let certificate: Value = serde_json::from_str(&left.stdout).unwrap();
    assert_eq!(certificate["counts"]["dead"], 1);
    let left = service.run("wait queue/numbers --max-dead-items 1").await;
    assert_eq!(left.code, Some(0), "{}", left.stderr);
    let queue = service.queue("stopped");
    queue.push(&[json!(1)]).await;
    let stop = json!({"outcome": "success"});
    queue.post("/stop", stop).await.ok();
    let left = service.run("wait stopped").await;
    assert_eq!(left.code, Some(1), "an abandoned item is no success");
    let left = service.run("wait pod/a").await;
    assert_eq!(left.code, Some(2));
    insta::assert_snapshot!(left.stderr, @r"
    gangline: pod/a is not waited for
    hint: gangline wait QUEUE, or gangline wait job/NAME
    ");
}

#[tokio::test]
async fn an_interrupted_wait_says_how_to_wait_again() {
    use nix::sys::signal::{Signal, kill};
    let service = Service::start().await;
    service.run("push numbers --range 1..2").await;
    let waiting = service
        .command("--log=gangline=debug,warn wait numbers")
        .spawn()
        .unwrap();
    let pid = i32::try_from(waiting.id().unwrap()).unwrap();
    // Before it listens for signals, one ends it without a word: so the status file is asked.
    let mask = format!("/proc/{pid}/status");
    let catches = |text: &str| {
        let line = text.lines().find(|line| line.starts_with("SigCgt:"));
        let bits = line.and_then(|line| u64::from_str_radix(line[7..].trim(), 16).ok());
        bits.is_some_and(|bits| bits & (1 << (Signal::SIGINT as u32 - 1)) != 0)
    };
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    while !catches(&std::fs::read_to_string(&mask).unwrap()) {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    kill(nix::unistd::Pid::from_raw(pid), Signal::SIGINT).unwrap();
    let left = end_of(waiting).await;
    assert_eq!(left.code, Some(130), "{}", left.stderr);
    insta::assert_snapshot!(left.stderr, @"gangline: it goes on without being waited for; to wait again: gangline wait numbers");
}

#[tokio::test]
async fn a_deleted_queue_ends_a_wait() {
    let service = Service::start().await;
    service.run("push numbers --range 1..2").await;
    let left = service.run("delete numbers").await;
    assert_eq!(left.code, Some(0), "{}", left.stderr);
    let left = service.run("wait numbers").await;
    assert_eq!(left.code, Some(1), "{}", left.stderr);
    let answer = service.queue("numbers").bare(Method::GET, "").await;
    assert_eq!(answer.refused(404), "queue_not_found");
}

#[tokio::test]
async fn results_are_held_to_the_certificate_of_their_queue() {
    let service = Service::start().await;
    service.run("push numbers --range 1..4").await;
    let left = service.run("results numbers --verify").await;
    assert_eq!((left.code, &*left.stdout), (Some(1), ""));
    insta::assert_snapshot!(left.stderr, @r"
    gangline: numbers is not over: it has no certificate yet
    hint: wait for its end: gangline wait numbers
    ");
    service.run("seal numbers").await;
    service.work_on("numbers").await;
    let digest = service.queue("numbers").get("").await.ok()["certificate"]["digest"].take();
    let digest = digest.as_str().unwrap();
    let left = service.run("results numbers --verify").await;
    let url = &service.server.url;
    let verified = |of: &str| format!("{of}: the 3 results of numbers, digest {digest}\n");
    assert_eq!(
        (left.code, left.stdout),
        (Some(0), verified(url)),
        "{}",
        left.stderr
    );

    let results = service.run("results numbers").await.stdout;
    let lines: Vec<&str> = results.lines().collect();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("copy");
    let verify = async |text: String| {
        std::fs::write(&file, text).unwrap();
        let line = format!("results numbers --verify --file {}", file.display());
        let left = service.run(&line).await;
        let name = file.display().to_string();
        (
            left.code,
            left.stdout.replace(&name, "copy"),
            left.stderr
                .replace(&name, "copy")
                .lines()
                .filter(|line| line.starts_with("item ") || line.contains(", line "))
                .collect::<Vec<_>>()
                .join("\n"),
        )
    };
    // Whatever their order.
    let shuffled = [lines[2], lines[0], lines[1]].join("\n");
    assert_eq!(
        verify(shuffled).await,
        (Some(0), verified("copy"), String::new())
    );
    let (code, stdout, differences) = verify(
        [
            lines[0],
            lines[0],
            &lines[1].replace("\"id\":3", "\"id\":9"),
        ]
        .join("\n"),
    )
    .await;
    assert_eq!((code, &*stdout), (Some(1), ""));
    insta::assert_snapshot!(differences, @r"
    item 2 is there more than once
    item 3 is missing
    item 4 is missing
    item 9 has no result in the queue
    ");
    let (code, _, differences) = verify(results.replace("\"4", "\"5")).await;
    assert_eq!(code, Some(1));
    insta::assert_snapshot!(differences, @"item 4 has another result");
    let (code, _, said) = verify([lines[0], "{}"].join("\n")).await;
    assert_eq!(code, Some(1));
    insta::assert_snapshot!(said, @"gangline: copy, line 2: this is no result of a queue: missing field `id` at line 1 column 2");
}
