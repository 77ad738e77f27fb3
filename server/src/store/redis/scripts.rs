//! The scripts: one library of Redis functions.
//!
//! Redis runs a library once, when it is loaded; a call runs its function only. (A script of
//! `EVALSHA` makes all of its functions anew in each call, which takes longer than most steps.)
//! The name of the library holds a hash of its text, so that services of several versions can
//! share a Redis.

use redis::{Cmd, RedisError, Value};
use sha2::{Digest, Sha256};

use super::connection::Connection;
use gangline_protocol::digest::hex;

pub(super) const HEAD: &str = include_str!("head.lua");

const PARTS: [&str; 14] = [
    HEAD,
    include_str!("keys.lua"),
    include_str!("marks.lua"),
    include_str!("items.lua"),
    include_str!("attempts.lua"),
    include_str!("lanes.lua"),
    include_str!("adding.lua"),
    include_str!("sessions.lua"),
    include_str!("progress.lua"),
    include_str!("push.lua"),
    include_str!("exchange.lua"),
    include_str!("control.lua"),
    include_str!("look.lua"),
    include_str!("registry.lua"),
];

/// A function of the library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Script {
    Push,
    Exchange,
    Control,
    Look,
    Claim,
}

/// All scripts.
#[derive(Debug)]
pub(super) struct Scripts {
    library: String,
    text: String,
}

impl Scripts {
    pub(super) fn new() -> Self {
        let parts = PARTS.concat();
        let hash = hex(&Sha256::digest(parts.as_bytes()));
        let library = format!("gangline_{}", &hash[..16]);
        let text = format!("#!lua name={library}\nlocal LIBRARY = '{library}'\n{parts}");
        Self { library, text }
    }

    /// Begins a call: the number of keys, keys and arguments follow.
    pub(super) fn call(&self, script: Script) -> Cmd {
        let (command, name) = match script {
            Script::Push => ("FCALL", "push"),
            Script::Exchange => ("FCALL", "exchange"),
            Script::Control => ("FCALL", "control"),
            Script::Look => ("FCALL_RO", "look"),
            Script::Claim => ("FCALL", "claim"),
        };
        let mut cmd = redis::cmd(command);
        cmd.arg(format!("{}_{name}", self.library));
        cmd
    }

    /// Sends a call; a Redis that does not know the library is taught it.
    pub(super) async fn send(
        &self,
        connection: &mut Connection,
        call: &Cmd,
    ) -> Result<Value, RedisError> {
        match call.query_async(connection).await {
            Err(error) if is_unknown_function(&error) => {
                let mut load = redis::cmd("FUNCTION");
                load.arg("LOAD").arg("REPLACE").arg(&self.text);
                // Of a cluster only the node that misses it: another may be away.
                connection.send_to_node_of(first_key(call), &load).await?;
                call.query_async(connection).await
            }
            answer => answer,
        }
    }
}

/// Returns the first key of a call: it stands behind command, function and number of keys.
pub(super) fn first_key(call: &Cmd) -> &[u8] {
    match call.args_iter().nth(3) {
        Some(redis::Arg::Simple(key)) => key,
        _ => b"",
    }
}

fn is_unknown_function(error: &RedisError) -> bool {
    error.detail() == Some("Function not found") || error.to_string().contains("Function not found")
}
