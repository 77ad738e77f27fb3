//! How a command finds the Kubernetes API: of a cluster, or of `gangline up`.

use http::Request;
use kube::Client;
use kube::config::KubeConfigOptions;
use serde_json::Value;

use crate::error::{Error, Kind, chain};

/// Where the cluster is.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Kubernetes")]
pub(crate) struct ClusterArgs {
    /// Context of the kubeconfig, which KUBECONFIG names, for Jobs and Pods
    #[arg(long, env = "GANGLINE_CONTEXT")]
    context: Option<String>,
    /// Namespace of Jobs and Pods; the one of the context when absent
    #[arg(short, long, env = "GANGLINE_NAMESPACE")]
    namespace: Option<String>,
}

/// A cluster that can be asked.
pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    url: String,
}

impl ClusterArgs {
    /// Returns the namespace that was asked for.
    pub(crate) fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    pub(crate) async fn open(self) -> Result<Cluster, Error> {
        let config = configuration(self.context).await?;
        let namespace = self.namespace.unwrap_or(config.default_namespace.clone());
        let url = config.cluster_url.to_string();
        let client = Client::try_from(config)
            .map_err(|error| Error::usage(format!("the kubeconfig: {}", chain(&error))))?;
        Ok(Cluster {
            client,
            namespace,
            url,
        })
    }
}

impl Cluster {
    /// Sends a request with a body, if there is one to send.
    pub(crate) async fn call(
        &self,
        request: http::request::Builder,
        body: Option<&Value>,
    ) -> Result<Value, Error> {
        let body = body.map_or(Vec::new(), |body| body.to_string().into_bytes());
        let request: Request<Vec<u8>> = request.body(body).map_err(Error::usage)?;
        let answer = self.client.request(request).await;
        answer.map_err(|error| self.complaint(&error))
    }

    /// Says what the cluster has against a call.
    pub(crate) fn complaint(&self, error: &kube::Error) -> Error {
        match error {
            kube::Error::Api(status) if matches!(status.code, 401 | 403) => {
                Error::new(Kind::Credentials, &status.message)
                    .hint("KUBECONFIG says who asks; kubectl auth can-i asks what that one may do")
            }
            kube::Error::Api(status) if status.code == 404 => {
                Error::new(Kind::Failed, &status.message)
                    .hint("gangline get jobs, or get pods, shows what there is; -n NAMESPACE where")
            }
            kube::Error::Api(status) if status.code < 500 => Error::usage(&status.message)
                .hint("nothing has changed; docs/jobs.md has what a Job may say"),
            other => {
                let text = format!(
                    "the cluster at {} does not answer: {}",
                    self.url,
                    chain(other)
                );
                Error::new(Kind::ServiceLost, text).hint(
                    "is it running? gangline up starts one here, and prints the KUBECONFIG of it",
                )
            }
        }
    }
}

/// Reads the context that is named, the current one, or the account of the Pod that this runs in.
pub(crate) async fn configuration(context: Option<String>) -> Result<kube::Config, Error> {
    let hint = "KUBECONFIG or ~/.kube/config says how to reach a cluster, --context which one; \
                gangline up prints the KUBECONFIG of its own";
    let Some(context) = context else {
        let inferred = kube::Config::infer().await;
        return inferred.map_err(|error| {
            Error::usage(format!("no cluster is configured: {error}")).hint(hint)
        });
    };
    let options = KubeConfigOptions {
        context: Some(context.clone()),
        ..KubeConfigOptions::default()
    };
    kube::Config::from_kubeconfig(&options)
        .await
        .map_err(|error| Error::usage(format!("--context {context}: {}", chain(&error))).hint(hint))
}
