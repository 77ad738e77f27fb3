use super::*;

fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len()).unwrap();
    assert!(length < 0x80);
    [&[number << 3 | 2, length], bytes].concat()
}

fn enveloped(kind: &[u8], raw: &[u8]) -> Vec<u8> {
    let type_ = [field(1, b"batch/v1"), field(2, kind)].concat();
    [MAGIC.to_vec(), field(1, &type_), field(2, raw)].concat()
}

#[test]
fn a_job_is_read_as_it_would_stand_in_json() {
    let environment = [field(1, b"A"), field(2, b"")].concat();
    let container = [
        field(1, b"main"),
        field(3, b"sh"),
        field(3, b"-c"),
        field(7, &environment),
        // `tty`, which is written although it is not set.
        vec![18 << 3 & 0x7f | 0x80, 1, 0],
    ]
    .concat();
    let template = field(2, &field(2, &container));
    let labels = field(11, &[field(1, b"app"), field(2, b"x")].concat());
    let metadata = [field(1, b"work"), field(2, b""), labels, field(8, b"")].concat();
    let spec = [vec![1 << 3, 0], vec![10 << 3, 0], field(6, &template)].concat();
    let body = enveloped(b"Job", &[field(1, &metadata), field(2, &spec)].concat());
    let expected = json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": { "name": "work", "labels": { "app": "x" } },
        "spec": {
            "parallelism": 0, "suspend": false,
            "template": { "spec": { "containers": [
                { "name": "main", "command": ["sh", "-c"], "env": [{ "name": "A" }] },
            ] } },
        },
    });
    assert_eq!(decode(&body), Ok(expected));
}

#[test]
fn what_is_no_message_is_refused() {
    assert_eq!(decode(b"{}"), Err(ProtobufError::NoMagic));
    assert_eq!(decode(b"k8s\0\x0a\x7f"), Err(ProtobufError::Malformed));
    assert_eq!(
        decode(&enveloped(b"Thing", b"")),
        Err(ProtobufError::UnknownKind("Thing".into()))
    );
    // A number where the metadata stands.
    assert_eq!(
        decode(&enveloped(b"Job", &[1 << 3, 1])),
        Err(ProtobufError::WrongType("metadata"))
    );
}
