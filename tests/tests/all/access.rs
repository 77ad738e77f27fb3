//! Who may call what: every route, every role, every scope, over HTTP, from one table.

use std::collections::BTreeSet;

use gangline_server::LimitsConfig;
use gangline_server::http::ROUTES;
use gangline_tests::{Api, TestServer, api::Answer, server::TOKEN};
use reqwest::Method;
use serde_json::{Value, json};

/// Where a token holds, seen from a call that concerns `team.q`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    Nowhere,
    Namespace,
    Queue,
    OtherNamespace,
    OtherQueue,
}

use Bound::{Namespace, Nowhere, OtherNamespace, OtherQueue, Queue};

const BOUNDS: [Bound; 5] = [Nowhere, Namespace, Queue, OtherNamespace, OtherQueue];
const ROLES: [&str; 4] = ["producer", "worker", "observer", "admin"];

/// What a call is about, which decides what its scope must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum About {
    /// The queue `team.q`.
    TheQueue,
    /// What the caller's scope holds.
    Own,
    /// All of the service.
    Everything,
    /// The process: no token is asked for.
    Nothing,
}

/// Method, path, the roles that may (`p`, `w`, `o`, `a`), and what it is about.
#[rustfmt::skip]
const TABLE: [(&str, &str, &str, About); 37] = [
    ("GET", "/healthz", "pwoa", About::Nothing),
    ("GET", "/readyz", "pwoa", About::Nothing),
    ("GET", "/openapi.json", "pwoa", About::Nothing),
    ("GET", "/metrics", "oa", About::Everything),
    ("GET", "/v1/events", "oa", About::Own),
    ("GET", "/v1/queues", "oa", About::Own),
    ("GET", "/v1/whoami", "pwoa", About::Own),
    ("GET", "/v1/tokens", "a", About::Own),
    ("POST", "/v1/tokens", "a", About::Own),
    ("DELETE", "/v1/tokens/{id}", "a", About::Own),
    ("PUT", "/v1/queues/{queue}", "pa", About::TheQueue),
    ("GET", "/v1/queues/{queue}", "pwoa", About::TheQueue),
    ("DELETE", "/v1/queues/{queue}", "a", About::TheQueue),
    ("POST", "/v1/queues/{queue}/items", "pa", About::TheQueue),
    ("GET", "/v1/queues/{queue}/items", "oa", About::TheQueue),
    ("GET", "/v1/queues/{queue}/items/{id}", "oa", About::TheQueue),
    ("DELETE", "/v1/queues/{queue}/items/{id}", "pa", About::TheQueue),
    ("POST", "/v1/queues/{queue}/seal", "pa", About::TheQueue),
    ("POST", "/v1/queues/{queue}/pause", "a", About::TheQueue),
    ("POST", "/v1/queues/{queue}/resume", "a", About::TheQueue),
    ("POST", "/v1/queues/{queue}/redrive", "a", About::TheQueue),
    ("POST", "/v1/queues/{queue}/stop", "a", About::TheQueue),
    ("POST", "/v1/queues/{queue}/exchange", "wa", About::TheQueue),
    ("POST", "/v1/queues/{queue}/lease", "wa", About::TheQueue),
    ("POST", "/v1/queues/{queue}/settle", "wa", About::TheQueue),
    ("POST", "/v1/queues/{queue}/heartbeat", "wa", About::TheQueue),
    ("POST", "/v1/queues/{queue}/leave", "wa", About::TheQueue),
    ("GET", "/v1/queues/{queue}/workers", "oa", About::TheQueue),
    ("GET", "/v1/queues/{queue}/workers/{name}", "oa", About::TheQueue),
    ("POST", "/v1/queues/{queue}/workers/{name}/revoke", "a", About::TheQueue),
    ("GET", "/v1/queues/{queue}/dead", "oa", About::TheQueue),
    ("GET", "/v1/queues/{queue}/explain", "oa", About::TheQueue),
    ("GET", "/v1/queues/{queue}/history", "oa", About::TheQueue),
    ("GET", "/v1/queues/{queue}/job", "oa", About::TheQueue),
    ("PUT", "/v1/queues/{queue}/job", "a", About::TheQueue),
    ("GET", "/v1/queues/{queue}/results", "oa", About::TheQueue),
    ("GET", "/v1/queues/{queue}/wait", "pwoa", About::TheQueue),
];

#[test]
fn the_table_has_every_route() {
    let routes: BTreeSet<_> = ROUTES.iter().map(|r| (r.method, r.path)).collect();
    let table: BTreeSet<_> = TABLE.iter().map(|row| (row.0, row.1)).collect();
    assert_eq!(routes, table);
}

async fn token(root: &Api, mut fields: Value, role: &str) -> Api {
    fields["roles"] = json!([role]);
    let made = root.call(Method::POST, "/v1/tokens", Some(fields)).await;
    let token = made.ok()["token"].as_str().unwrap().to_owned();
    Api::new(&root.url, Some(&token))
}

fn scope(bound: Bound) -> Value {
    match bound {
        Nowhere => json!({"namespace": "*"}),
        Namespace => json!({"namespace": "team"}),
        Queue => json!({"queue": "team.q"}),
        OtherNamespace => json!({"namespace": "other"}),
        OtherQueue => json!({"queue": "team.other"}),
    }
}

/// Calls a route; a stream is not read to its end.
async fn call(api: &Api, method: &str, path: &str) -> Answer {
    let path = path.replace("{queue}", "team.q").replace("{name}", "w");
    let path = match path.as_str() {
        "/v1/tokens/{id}" => "/v1/tokens/0000000000000000".to_owned(),
        _ => path.replace("{id}", "1"),
    };
    let wait = if path.ends_with("/wait") {
        "?waitMs=0"
    } else {
        ""
    };
    let method: Method = method.parse().unwrap();
    let json = [("content-type", "application/json")];
    let response = api
        .send(method, &format!("{path}{wait}"), &json, Vec::new())
        .await;
    if response.status().is_success() {
        return Answer {
            status: response.status().as_u16(),
            body: Value::Null,
        };
    }
    gangline_tests::api::answer(response).await
}

#[tokio::test]
async fn every_role_may_call_what_is_its_own_and_nothing_else() {
    let mut server = TestServer::start().await;
    let root = Api::new(&server.url, Some(TOKEN));
    let nobody = Api::new(&server.url, None);
    let stranger = Api::new(&server.url, Some("glt_of-another-service"));
    for (method, path, _, about) in TABLE {
        for api in [&nobody, &stranger] {
            let answer = call(api, method, path).await;
            if about == About::Nothing {
                assert_eq!(answer.status, 200, "{method} {path}");
            } else {
                assert_eq!(answer.refused(401), "unauthenticated");
            }
        }
    }
    for role in ROLES {
        for bound in BOUNDS {
            let api = token(&root, scope(bound), role).await;
            for (method, path, roles, about) in TABLE {
                let in_scope = match about {
                    About::TheQueue => matches!(bound, Nowhere | Namespace | Queue),
                    About::Everything => bound == Nowhere,
                    About::Own | About::Nothing => true,
                };
                let wanted = roles.contains(&role[..1]) && in_scope || about == About::Nothing;
                let answer = call(&api, method, path).await;
                let code = answer.body["code"].as_str().unwrap_or_default();
                let allowed = code != "forbidden";
                assert_eq!(
                    allowed, wanted,
                    "{role} bound to {bound:?}: {method} {path}"
                );
                // What is allowed reaches its handler.
                for elsewhere in ["unauthenticated", "not_found", "method_not_allowed"] {
                    assert_ne!(code, elsewhere, "{method} {path}");
                }
            }
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_token_sees_the_queues_and_tokens_of_its_scope_only() {
    let mut server = TestServer::start().await;
    let root = Api::new(&server.url, Some(TOKEN));
    for queue in ["team.q", "team.other", "other.q"] {
        let path = format!("/v1/queues/{queue}");
        root.call(Method::PUT, &path, None).await.ok();
    }
    let rows = [
        (
            json!({"namespace": "*"}),
            vec!["other.q", "team.other", "team.q"],
        ),
        (json!({"namespace": "team"}), vec!["team.other", "team.q"]),
        (json!({"queue": "team.q"}), vec!["team.q"]),
        (json!({"namespace": "empty"}), vec![]),
    ];
    for (fields, wanted) in rows {
        let api = token(&root, fields.clone(), "observer").await;
        let queues = api.call(Method::GET, "/v1/queues", None).await.ok();
        let names = queues["queues"].as_array().unwrap().iter();
        let names: Vec<&str> = names.map(|one| one["queue"].as_str().unwrap()).collect();
        assert_eq!(names, wanted, "{fields}");
    }
    let foreign = token(&root, json!({"queue": "team.q"}), "observer").await;
    let events = call(&foreign, "GET", "/v1/events?queue=team.other").await;
    assert_eq!(events.refused(403), "forbidden");

    let admin = token(&root, json!({"namespace": "team"}), "admin").await;
    let more = json!({"roles": ["worker"], "namespace": "*"});
    let refused = admin.call(Method::POST, "/v1/tokens", Some(more)).await;
    assert_eq!(refused.refused(403), "forbidden");
    let seen = admin.call(Method::GET, "/v1/tokens", None).await.ok();
    for token in seen["tokens"].as_array().unwrap() {
        assert_eq!(token["namespace"], "team");
        assert_eq!(token.get("token"), None);
    }
    let all = root.call(Method::GET, "/v1/tokens", None).await.ok();
    let all = all["tokens"].as_array().unwrap();
    let foreign = all.iter().find(|one| one["namespace"] == "*").unwrap();
    let path = format!("/v1/tokens/{}", foreign["id"].as_str().unwrap());
    let refused = admin.call(Method::DELETE, &path, None).await;
    assert_eq!(refused.refused(404), "token_not_found");
    root.call(Method::DELETE, &path, None).await.ok();
    server.stop().await;
}

#[tokio::test]
async fn a_name_written_another_way_is_no_way_around_a_scope() {
    let mut server = TestServer::start().await;
    let root = Api::new(&server.url, Some(TOKEN));
    let api = token(&root, json!({"queue": "team.q"}), "admin").await;
    for path in [
        "/v1/queues/team%2Eother",
        "/v1/queues/%74eam.other",
        "/v1/queues/team%2eq%2f..%2fother",
        "/v1/queues/other",
        "/v1/queues/default.q",
        "/v1/queues/q",
    ] {
        let answer = api.call(Method::PUT, path, None).await;
        assert!(
            [400, 403, 404].contains(&answer.status),
            "{path}: {}",
            answer.body
        );
    }
    let written_another_way = api.call(Method::PUT, "/v1/queues/%74eam.q", None).await;
    written_another_way.ok();
    let queues = root.call(Method::GET, "/v1/queues", None).await.ok();
    assert_eq!(queues["queues"].as_array().unwrap().len(), 1);
    server.stop().await;
}

#[tokio::test]
async fn a_token_whose_hash_was_registered_works_until_it_is_revoked_or_expires() {
    use sha2::{Digest, Sha256};
    let mut server = TestServer::start().await;
    let root = Api::new(&server.url, Some(TOKEN));
    let made_here = "glt_made-by-the-controller";
    let hash: String = Sha256::digest(made_here)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let request = json!({"roles": ["worker"], "queue": "team.q", "hash": hash, "note": "job"});
    let mut ids = Vec::new();
    for _ in 0..2 {
        let made = root
            .call(Method::POST, "/v1/tokens", Some(request.clone()))
            .await
            .ok();
        assert_eq!(made.get("token"), None);
        ids.push(made["id"].clone());
    }
    assert_eq!(ids[0], ids[1]);
    let worker = Api::new(&server.url, Some(made_here));
    let lease = json!({"worker": "w", "lease": {"number": 1, "max": 1}});
    let path = "/v1/queues/team.q/lease";
    worker
        .call(Method::POST, path, Some(lease.clone()))
        .await
        .ok();
    let own = worker.call(Method::GET, "/v1/whoami", None).await.ok();
    assert_eq!(
        own,
        json!({"roles": ["worker"], "namespace": "team", "queue": "team.q"})
    );
    let revoke = format!("/v1/tokens/{}", ids[0].as_str().unwrap());
    root.call(Method::DELETE, &revoke, None).await.ok();
    let refused = worker.call(Method::POST, path, Some(lease)).await;
    assert_eq!(refused.refused(401), "unauthenticated");
    server.stop().await;
}

#[tokio::test]
async fn bad_token_requests_are_refused_by_field() {
    let mut server = TestServer::start().await;
    let root = Api::new(&server.url, Some(TOKEN));
    let rows = [
        (json!({"roles": []}), "out_of_bounds", "roles"),
        (json!({"roles": ["king"]}), "invalid_body", "roles[0]"),
        (
            json!({"roles": ["worker"], "namespace": "A"}),
            "invalid_body",
            "namespace",
        ),
        (
            json!({"roles": ["worker"], "namespace": "a", "queue": "b.q"}),
            "invalid_body",
            "namespace",
        ),
        (
            json!({"roles": ["worker"], "hash": "00"}),
            "invalid_body",
            "hash",
        ),
        (
            json!({"roles": ["worker"], "expiresInMs": 0}),
            "out_of_bounds",
            "expiresInMs",
        ),
        (
            json!({"roles": ["worker"], "note": "x".repeat(257)}),
            "out_of_bounds",
            "note",
        ),
    ];
    for (body, code, field) in rows {
        let answer = root.call(Method::POST, "/v1/tokens", Some(body)).await;
        assert_eq!(answer.body["field"], field, "{}", answer.body);
        assert_eq!(answer.refused(400), code);
    }
    let answer = root.call(Method::DELETE, "/v1/tokens/zero", None).await;
    assert_eq!(answer.refused(400), "invalid_parameter");
    server.stop().await;
}

#[tokio::test]
async fn a_namespace_is_refused_beyond_its_queues_and_its_rate_and_others_are_not() {
    let limits = LimitsConfig {
        namespace_queues_max: 2,
        namespace_requests_per_second: 1,
        ..LimitsConfig::default()
    };
    let mut server = TestServer::start_with(limits).await;
    let root = Api::new(&server.url, Some(TOKEN));
    let bad_settings = json!({"maxAttempts": 0});
    for (queue, body, status) in [
        ("team.a", None, 200),
        ("team.c", Some(bad_settings), 400),
        ("team.b", None, 200),
        ("team.c", None, 429),
        ("team.a", None, 200),
        ("other.c", None, 200),
    ] {
        let path = format!("/v1/queues/{queue}");
        let answer = root.call(Method::PUT, &path, body).await;
        assert_eq!(answer.status, status, "{queue}: {}", answer.body);
    }
    let team = token(&root, json!({"namespace": "team"}), "observer").await;
    let other = token(&root, json!({"namespace": "other"}), "observer").await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..60 {
        let team = team.clone();
        calls.spawn(async move { team.call(Method::GET, "/v1/whoami", None).await });
    }
    let answers = calls.join_all().await;
    let (taken, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|a| a.status == 200);
    assert!(!taken.is_empty());
    assert!(!refused.is_empty());
    for answer in refused {
        assert_eq!(answer.refused(429), "too_many_requests");
    }
    other.call(Method::GET, "/v1/whoami", None).await.ok();
    server.stop().await;
}
