//! The logs of Pods, which the kubelet keeps.

use std::io;

use axum::response::{IntoResponse, Response};
use http::header;
use serde_json::Value;

use super::Api;
use super::error::{ApiError, Result};
use super::target::{Parameters, Target, is_on, number};
use crate::objects::resource::Resource;

pub(super) fn read(
    api: &Api,
    target: &Target,
    name: &str,
    parameters: &Parameters,
) -> Result<Response> {
    let pod = api.store.get(Resource::Pods, target.namespace(), name);
    let pod = pod.ok_or_else(|| ApiError::not_found(Resource::Pods, name))?;
    let container = container(pod.value(), name, &parameters.container)?;
    let tail = number("tailLines", &parameters.tail_lines)?;
    let lines = match api.kubelet.logs(pod.uid(), container, tail) {
        Ok(lines) => lines,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(ApiError::bad_request(format!(
                "container {container:?} in pod {name:?} is waiting to start: ContainerCreating"
            )));
        }
        Err(error) => {
            return Err(ApiError::internal(format!(
                "failed to read the log: {error}"
            )));
        }
    };
    let text = text(&lines, is_on(&parameters.timestamps));
    Ok(([(header::CONTENT_TYPE, "text/plain")], text).into_response())
}

fn container<'a>(pod: &'a Value, pod_name: &str, asked: &'a str) -> Result<&'a str> {
    let of = |key: &str| {
        let list = pod["spec"][key].as_array().into_iter().flatten();
        list.filter_map(|container| container["name"].as_str())
            .collect::<Vec<_>>()
    };
    let (init, main) = (of("initContainers"), of("containers"));
    match (asked, main.as_slice()) {
        ("", [one]) => Ok(one),
        ("", many) => Err(ApiError::bad_request(format!(
            "a container name must be specified for pod {pod_name}, choose one of: [{}]",
            many.join(" ")
        ))),
        (asked, main) if main.contains(&asked) || init.contains(&asked) => Ok(asked),
        (asked, _) => Err(ApiError::bad_request(format!(
            "container {asked} is not valid for pod {pod_name}"
        ))),
    }
}

/// Makes what the program wrote of lines `TIME STREAM TAG TEXT`; the tag P says that the line goes on.
fn text(lines: &[String], with_times: bool) -> String {
    let mut text = String::new();
    let mut begins = true;
    for line in lines {
        let mut parts = line.splitn(4, ' ');
        let (time, _, tag) = (parts.next(), parts.next(), parts.next());
        if with_times && begins {
            text.push_str(time.unwrap_or_default());
            text.push(' ');
        }
        text.push_str(parts.next().unwrap_or_default());
        begins = tag != Some("P");
        if begins {
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_in_parts_come_together() {
        let lines = [
            "t1 stdout F one two",
            "t2 stderr P th",
            "t3 stderr F ree",
            "t4 stdout F ",
        ];
        let lines = lines.map(str::to_owned);
        assert_eq!(text(&lines, false), "one two\nthree\n\n");
        assert_eq!(text(&lines, true), "t1 one two\nt2 three\nt4 \n");
    }
}
