//! Where Redis is looked for, from the URL that was given.

use std::time::Duration;

use redis::{AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, RedisConnectionInfo};

use super::link::{CONNECT, RedisTrouble};

/// The port of a Sentinel that names none.
const SENTINEL_PORT: u16 = 26_379;

/// How often the Sentinels are asked whether the primary is another one.
const ASK: Duration = Duration::from_secs(1);

/// One Redis, some nodes of a Redis Cluster, or Sentinels that know where the primary is.
pub(super) struct Address {
    nodes: Vec<ConnectionInfo>,
    /// The name under which the Sentinels know the primary.
    primary: Option<String>,
    shown: String,
}

impl Address {
    /// Reads `redis://[user:password@]host[:port][,host…][/db]`, `rediss://` for TLS,
    /// `unix:///path[?user=…&pass=…&db=…]`, or `redis+sentinel://[user:password@]host[:port][,host…]/name[/db]`.
    pub(super) fn parse(url: &str) -> Result<Self, RedisTrouble> {
        // A URL may hold a password, before the host or behind a path, and must not come back whole.
        let after_password = url.rsplit_once('@').map_or(url, |(_, host)| host);
        let shown = after_password.split('?').next().unwrap_or_default();
        let wrong = || RedisTrouble::Url(shown.to_owned());
        let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
        let (base, is_sentinel) = match scheme.strip_suffix("+sentinel") {
            Some(base) => (base, true),
            None => (scheme, false),
        };
        let urls: Vec<String>;
        let mut primary = None;
        if matches!(base, "redis" | "rediss") {
            let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
            let (user, hosts) = match authority.rsplit_once('@') {
                Some((user, hosts)) => (format!("{user}@"), hosts),
                None => (String::new(), authority),
            };
            let mut database = path;
            if is_sentinel {
                let (name, db) = path.split_once('/').unwrap_or((path, ""));
                if name.is_empty() {
                    return Err(wrong());
                }
                (primary, database) = (Some(name.to_owned()), db);
            }
            let node = |host: &str| match is_sentinel && !has_port(host) {
                true => format!("{base}://{user}{host}:{SENTINEL_PORT}/{database}"),
                false => format!("{base}://{user}{host}/{database}"),
            };
            urls = hosts.split(',').map(node).collect();
        } else if is_sentinel {
            return Err(wrong());
        } else {
            urls = vec![url.to_owned()];
        }
        let mut nodes = Vec::new();
        for url in urls {
            let client = Client::open(url).map_err(|_| wrong())?;
            nodes.push(client.get_connection_info().clone());
        }
        let names: Vec<String> = nodes.iter().map(|node| node.addr().to_string()).collect();
        Ok(Self {
            nodes,
            primary,
            shown: names.join(","),
        })
    }

    /// Where it is looked for, without credentials.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// Returns the nodes to try, in this order.
    pub(super) async fn nodes(&self) -> Result<Vec<ConnectionInfo>, RedisTrouble> {
        let Some(primary) = &self.primary else {
            return Ok(self.nodes.clone());
        };
        let mut detail = String::new();
        for sentinel in &self.nodes {
            match ask(sentinel, primary).await {
                Ok(Some((host, port))) => return Ok(vec![at(sentinel, host, port)]),
                Ok(None) => detail = format!("it knows no primary named {primary}"),
                Err(error) => detail = error.to_string(),
            }
        }
        Err(RedisTrouble::Away {
            address: self.shown.clone(),
            what: "has no Sentinel that tells where the primary is",
            detail,
        })
    }
}

impl Address {
    /// Waits until the Sentinels tell of another primary than this. The one of before may go on as
    /// if nothing had happened for some seconds, and all that it is given is lost.
    pub(super) async fn until_moved(&self, from: &ConnectionInfo) {
        if self.primary.is_none() {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(ASK).await;
            if let Ok(nodes) = self.nodes().await
                && nodes.iter().all(|node| node.addr() != from.addr())
            {
                return;
            }
        }
    }
}

fn has_port(host: &str) -> bool {
    host.rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok())
}

/// Asks a Sentinel, which has no password of its own, where the primary is.
async fn ask(
    sentinel: &ConnectionInfo,
    primary: &str,
) -> redis::RedisResult<Option<(String, u16)>> {
    let plain = sentinel
        .clone()
        .set_redis_settings(RedisConnectionInfo::default());
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT))
        .set_response_timeout(Some(CONNECT));
    let client = Client::open(plain)?;
    let mut connection = client
        .get_multiplexed_async_connection_with_config(&config)
        .await?;
    let mut cmd = redis::cmd("SENTINEL");
    cmd.arg("GET-MASTER-ADDR-BY-NAME").arg(primary);
    cmd.query_async(&mut connection).await
}

/// The same credentials and the same kind of connection, elsewhere.
fn at(like: &ConnectionInfo, host: String, port: u16) -> ConnectionInfo {
    let addr = match like.addr() {
        ConnectionAddr::TcpTls {
            insecure,
            tls_params,
            ..
        } => ConnectionAddr::TcpTls {
            host,
            port,
            insecure: *insecure,
            tls_params: tls_params.clone(),
        },
        _ => ConnectionAddr::Tcp(host, port),
    };
    like.clone().set_addr(addr)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_url_is_read() {
        for (url, shown) in [
            ("redis://host", "host:6379"),
            ("redis://me:pw@a:1,b:2,c/0", "a:1,b:2,c:6379"),
            ("rediss://host:1/3", "host:1"),
            ("redis+sentinel://:pw@a,b:7/main/2", "a:26379,b:7"),
            ("unix:///run/redis.sock", "/run/redis.sock"),
        ] {
            assert_eq!(Address::parse(url).unwrap().shown(), shown, "{url}");
        }
        for url in [
            "http://me:secret@host",
            "me:secret@host",
            "redis://me:secret@",
            "redis+sentinel://me:secret@host",
            "unix+sentinel:///path@",
            "redis://me:secret@host:port",
            "unix:///path?pass=secret&db=x",
        ] {
            let told = Address::parse(url).err().expect(url).to_string();
            assert!(!told.contains("secret"), "{told}");
        }
    }
}
