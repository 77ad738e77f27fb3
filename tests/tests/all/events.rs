//! `/v1/events`: what a client hears, and what one hears that comes again.

use gangline_tests::{Api, TestServer, server::TOKEN};
use reqwest::Method;
use serde_json::{Value, json};

/// One server-sent event.
#[derive(Debug)]
struct Event {
    kind: String,
    id: Option<String>,
    data: Value,
}

/// Returns the first events of a stream; a comment is an event without a kind.
async fn first(api: &Api, path: &str, last: Option<&str>, count: usize) -> Vec<Event> {
    let headers: Vec<_> = last.map(|id| ("last-event-id", id)).into_iter().collect();
    let mut response = api.send(Method::GET, path, &headers, Vec::new()).await;
    assert_eq!(response.status().as_u16(), 200);
    let mut text = String::new();
    while text.matches("\n\n").count() < count {
        let part = response.chunk().await.unwrap().expect("an event");
        text.push_str(std::str::from_utf8(&part).unwrap());
    }
    let events = text.split("\n\n").take(count);
    events
        .map(|event| {
            let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
            let data = field("data: ").map_or(Value::Null, |data| data.parse().unwrap());
            Event {
                kind: field("event: ").unwrap_or_default().to_owned(),
                id: field("id: ").map(str::to_owned),
                data,
            }
        })
        .collect()
}

fn names(queues: &Value) -> Vec<&str> {
    let queues = queues.as_array().unwrap().iter();
    queues
        .map(|status| status["queue"].as_str().unwrap())
        .collect()
}

async fn make(api: &Api, queue: &str) {
    let path = format!("/v1/queues/{queue}");
    api.call(Method::PUT, &path, Some(json!({}))).await.ok();
}

#[tokio::test]
async fn a_client_that_comes_again_hears_what_it_has_missed() {
    let mut server = TestServer::start().await;
    let api = Api::new(&server.url, Some(TOKEN));
    for queue in ["a", "b", "c"] {
        make(&api, queue).await;
    }
    let events = first(&api, "/v1/events", None, 1).await;
    assert_eq!(events[0].kind, "queues");
    assert_eq!(names(&events[0].data), ["a", "b", "c"]);
    let told = events[0].id.as_deref().unwrap();

    let same = first(&api, "/v1/events", Some(told), 1).await;
    assert_eq!(same[0].kind, "", "nothing has changed: {same:?}");

    api.call(Method::POST, "/v1/queues/b/seal", None).await.ok();
    api.call(Method::DELETE, "/v1/queues/c", None).await.ok();
    make(&api, "d").await;
    let missed = first(&api, "/v1/events", Some(told), 1).await;
    assert_eq!(missed[0].kind, "changed");
    assert_eq!(names(&missed[0].data["changed"]), ["b", "d"]);
    assert_eq!(missed[0].data["gone"], json!(["c"]));
    let told = missed[0].id.clone().unwrap();

    // What was said of all queues is no ground for a stream of one.
    let one = first(&api, "/v1/events?queue=b", Some(&told), 2).await;
    assert_eq!((&*one[0].kind, &*one[1].kind), ("reset", "queues"));
    assert_eq!(names(&one[1].data), ["b"]);

    server.stop().await;
    // Whatever another process knows, it does not know what this client was told.
    let mut server = TestServer::start().await;
    let api = Api::new(&server.url, Some(TOKEN));
    make(&api, "a").await;
    for told in [&*told, "no id"] {
        let anew = first(&api, "/v1/events", Some(told), 2).await;
        assert_eq!((&*anew[0].kind, &*anew[1].kind), ("reset", "queues"));
        assert_eq!(names(&anew[1].data), ["a"]);
    }
    server.stop().await;
}
