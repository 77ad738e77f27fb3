//! `gangline up`: the queue service, the local cluster and the controller, until stopped.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use gangline_worker::exec::shell::quote;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::examples;
use super::local::{ImagesArgs, Local, PodLife, Settings};
use crate::error::Error;
use crate::private::{create_directory, random, state_home, write_file};
use crate::{output, signals};

/// Arguments of `gangline up`.
#[derive(Debug, clap::Args)]
#[command(after_help = examples::UP)]
pub(crate) struct Args {
    /// Address of the queue service and its dashboard; port 0 takes any free one
    #[arg(
        long,
        env = "GANGLINE_LISTEN",
        default_value = "127.0.0.1:4264",
        value_name = "ADDRESS"
    )]
    listen: SocketAddr,
    /// Address of the cluster's API, on loopback: whoever may use it runs commands as this user
    #[arg(long, default_value = "127.0.0.1:4265", value_name = "ADDRESS")]
    cluster_listen: SocketAddr,
    /// Directory that keeps queues and objects; below $XDG_STATE_HOME/gangline when absent
    #[arg(long, env = "GANGLINE_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    images: ImagesArgs,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode, Error> {
    let Args {
        listen,
        cluster_listen,
        data_dir,
        images,
    } = args;
    if !cluster_listen.ip().is_loopback() {
        let text = format!("--cluster-listen must be a loopback address, not {cluster_listen}");
        return Err(Error::usage(text).hint("creating a Pod is running a command as this user"));
    }
    let dir = match data_dir {
        Some(dir) => std::path::absolute(dir).map_err(Error::disk)?,
        None => state_home()?.join("gangline/up"),
    };
    let listener = TcpListener::bind(cluster_listen).await.map_err(|error| {
        Error::usage(format!("cannot listen on {cluster_listen}: {error}"))
            .hint("--cluster-listen takes another address, port 0 any free one")
    })?;
    let address = listener.local_addr().map_err(Error::disk)?;
    let token = token(&dir)?;
    let mut local = Local::start(Settings {
        dir: &dir,
        token: &token,
        listen,
        pods: PodLife::Cluster,
        images,
    })
    .await?;
    let kubeconfig = dir.join("kubeconfig");
    write_private(
        &kubeconfig,
        &gangline_local_cluster::kubeconfig(address, &token),
    )?;
    let shutdown = CancellationToken::new();
    signals::cancel_on_signal(shutdown.clone())?;
    local.serve_cluster(listener, token.clone());
    let url = local.queues.url();
    let quoted = quote(&kubeconfig.to_string_lossy());
    output::line(format_args!("export KUBECONFIG={quoted}"));
    output::line(format_args!("export GANGLINE_URL={url}"));
    output::line(format_args!("export GANGLINE_TOKEN={token}"));
    output::note(format_args!(
        "gangline: watch at {url}/dashboard#token={token}"
    ));
    let ended = tokio::select! {
        () = shutdown.cancelled() => Ok(ExitCode::SUCCESS),
        failure = local.failed() => Err(failure),
    };
    local.stop().await;
    ended
}

/// Returns the token of this directory, which stays the same, so that clients stay connected.
fn token(dir: &Path) -> Result<String, Error> {
    let file = dir.join("token");
    match fs::read_to_string(&file) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(cannot_use(&file, &error)),
    }
    create_directory(dir).map_err(|error| cannot_use(dir, &error))?;
    let token = random();
    write_private(&file, &token)?;
    Ok(token)
}

fn cannot_use(path: &Path, error: &std::io::Error) -> Error {
    Error::disk(format!("cannot use {}: {error}", path.display()))
}

/// Writes a file that only this user may read.
fn write_private(path: &Path, text: &str) -> Result<(), Error> {
    write_file(path, text).map_err(|error| cannot_use(path, &error))
}
