//! What a Job says about its queue, and what its Pods learn of it.

use super::*;

#[track_caller]
fn refused(annotations: Value, complaint: &str) {
    let error = QueueSpec::of(&annotated(annotations)).unwrap_err();
    assert_eq!(error.to_string(), complaint);
}

#[test]
fn annotations_that_mean_nothing_are_refused_by_name() {
    refused(
        json!({ "gangline.dev/drain-seconds": "soon" }),
        r#"annotation gangline.dev/drain-seconds must be a whole number of seconds, not "soon""#,
    );
    refused(
        json!({ "gangline.dev/first-success": "maybe" }),
        r#"annotation gangline.dev/first-success must be stop or continue, not "maybe""#,
    );
    refused(
        json!({ "gangline.dev/stop-at-dead-items": "0" }),
        r#"annotation gangline.dev/stop-at-dead-items must be a whole number above 0, not "0""#,
    );
    refused(
        json!({ "gangline.dev/items": "9..1" }),
        r#"annotation gangline.dev/items must be FIRST..LAST or configmap/NAME, not "9..1""#,
    );
    refused(
        json!({ "gangline.dev/queue": "other.images" }),
        r#"annotation gangline.dev/queue names a queue in namespace "other", but the Job is in "default""#,
    );
    refused(
        json!({ "gangline.dev/queue": "Images" }),
        "annotation gangline.dev/queue does not name a queue",
    );
    refused(
        json!({ "gangline.dev/drain-second": "5" }),
        "annotation gangline.dev/drain-second means nothing: there are gangline.dev/queue and, beside it, \
         gangline.dev/items, gangline.dev/first-success, gangline.dev/drain-seconds, \
         gangline.dev/max-dead-items, gangline.dev/stop-at-dead-items, gangline.dev/scale-to-items, \
         gangline.dev/idle-seconds, gangline.dev/wrap",
    );
    let misspelt = json!({ "metadata": { "annotations": { "gangline.dev/Queue": "images" } } });
    assert_eq!(
        QueueSpec::of(&job(misspelt)),
        Err(AnnotationError::Unknown("gangline.dev/Queue".into()))
    );
    let indexed = job(json!({ "spec": { "completionMode": "Indexed", "completions": 3 } }));
    assert_eq!(QueueSpec::of(&indexed), Err(AnnotationError::Kind));
    let many = job(json!({ "spec": { "completions": 2 } }));
    assert_eq!(QueueSpec::of(&many), Err(AnnotationError::Kind));
}

#[test]
fn what_a_job_says_is_judged_by_its_json_too() {
    let check = |annotations: Value, spec: Value| {
        let metadata = json!({ "name": "a", "namespace": "default", "annotations": annotations });
        let error = QueueSpec::check(&json!({ "metadata": metadata, "spec": spec })).err()?;
        Some((error.annotation().to_owned(), error.rule()))
    };
    let rule = |annotations: Value| check(annotations, json!({})).unwrap();
    assert_eq!(check(json!({ QUEUE: "$(job)" }), json!({})), None);
    assert_eq!(check(json!({}), json!({ "completions": 5 })), None);
    assert_eq!(
        check(json!({ QUEUE: "a" }), json!({ "completions": 5 })),
        Some((
            QUEUE.into(),
            "needs a Job with completionMode NonIndexed, and completions absent or 1".into()
        ))
    );
    let indexed = json!({ "completionMode": "Indexed", "completions": 1 });
    assert_eq!(check(json!({ QUEUE: "a" }), indexed).unwrap().0, QUEUE);
    assert_eq!(
        rule(json!({ QUEUE: "a", "gangline.dev/drain-seconds": "-1" })),
        (
            "gangline.dev/drain-seconds".into(),
            "must be a whole number of seconds".into()
        )
    );
    assert_eq!(
        rule(json!({ "gangline.dev/wrap": "true" })),
        (
            "gangline.dev/wrap".into(),
            "needs gangline.dev/queue".into()
        )
    );
    let (annotation, rule) = rule(json!({ QUEUE: "A_B" }));
    assert_eq!(annotation, QUEUE);
    assert!(rule.contains("lower"), "{rule}");
}

#[test]
fn annotations_have_defaults_and_the_name_of_the_job_can_be_the_queue() {
    let spec = QueueSpec::of(&annotated(json!({ QUEUE: "$(job)-work" })))
        .unwrap()
        .unwrap();
    assert_eq!(spec.queue.full(), "default.resize-work");
    assert_eq!(spec.first_success, FirstSuccess::Stop);
    assert_eq!((spec.drain.as_secs(), spec.idle.as_secs()), (30, 60));
    assert_eq!((spec.max_dead_items, spec.stop_at_dead_items), (0, None));
    assert!(spec.scale_to_items && !spec.wrap && spec.items.is_none());
    let filled = annotated(json!({ "gangline.dev/items": "1..1000" }));
    let items = QueueSpec::of(&filled).unwrap().unwrap().items;
    assert_eq!(
        items,
        Some(ItemsSource::Range {
            first: 1,
            last: 1_000
        })
    );
}

#[test]
fn a_job_whose_annotations_mean_nothing_is_left_as_it_is() {
    let job = annotated(json!({ "gangline.dev/idle-seconds": "x" }));
    let plan = planned(
        job,
        vec![exited("a", 0, ago(5)), running("b")],
        QueueView::Unread,
    );
    assert_eq!(reasons(&plan), ["InvalidQueueAnnotation"]);
    assert_eq!((created(&plan), plan.delete.len(), plan.end), (0, 0, None));
}

#[test]
fn pods_learn_how_to_reach_their_queue_and_variables_of_the_user_win() {
    let own = json!({ "spec": { "template": { "spec": { "containers": [{
        "name": "main", "command": ["resize"], "args": ["-q"],
        "env": [{ "name": "GANGLINE_URL", "value": "http://mine" }],
    }] } } } });
    let plan = planned(
        job(own.clone()),
        vec![],
        seen(snapshot(Phase::Sealed, ready(1))),
    );
    let manifest = &plan.create[0][0].manifest;
    let container = &manifest["spec"]["containers"][0];
    let entry = |name: &str| {
        let env = container["env"].as_array().unwrap();
        env.iter().find(|entry| entry["name"] == name).unwrap()
    };
    let value = |name: &str| entry(name)["value"].clone();
    assert_eq!(value("GANGLINE_URL"), "http://mine");
    assert_eq!(value("GANGLINE_QUEUE"), "default.images");
    assert_eq!(
        entry("GANGLINE_TOKEN")["valueFrom"]["secretKeyRef"],
        json!({ "name": "the-secret", "key": "token" })
    );
    assert_eq!(value("GANGLINE_WORKER"), "$(GANGLINE_POD_UID).main");
    assert_eq!(value("GANGLINE_GRACE_SECONDS"), "30");
    assert_eq!(container["command"], json!(["resize"]));
    let mut wrapped = own;
    merge(
        &mut wrapped,
        json!({ "metadata": { "annotations": { "gangline.dev/wrap": "true" } } }),
    );
    let plan = planned(
        job(wrapped),
        vec![],
        seen(snapshot(Phase::Sealed, ready(1))),
    );
    let command = &plan.create[0][0].manifest["spec"]["containers"][0]["command"];
    assert_eq!(
        *command,
        json!(["/bin/gangline", "work", "--", "resize", "-q"])
    );
}
