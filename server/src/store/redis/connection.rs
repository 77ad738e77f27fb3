//! What all requests of a replica go over: one Redis, or a Redis Cluster.

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{
    MultipleNodeRoutingInfo, Route, RoutingInfo, SingleNodeRoutingInfo, SlotAddr,
};
use redis::{Cmd, FromRedisValue, Pipeline, RedisFuture, RedisResult, Value};

/// A connection that all requests share; they are pipelined.
#[derive(Clone)]
pub(super) enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::One(one) => one.req_packed_command(cmd),
            Self::Cluster(cluster) => cluster.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::One(one) => one.req_packed_commands(pipeline, offset, count),
            Self::Cluster(cluster) => cluster.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::One(one) => one.get_db(),
            Self::Cluster(_) => 0,
        }
    }
}

impl Connection {
    /// Sends a command that names no key to the node that has one.
    pub(super) async fn send_to_node_of(&mut self, key: &[u8], cmd: &Cmd) -> RedisResult<Value> {
        match self {
            Self::One(one) => one.send_packed_command(cmd).await,
            Self::Cluster(cluster) => {
                let route = Route::new(slot(key), SlotAddr::Master);
                let routing = RoutingInfo::SingleNode(SingleNodeRoutingInfo::SpecificNode(route));
                cluster.route_command(cmd.clone(), routing).await
            }
        }
    }

    /// Asks every primary; returns what each says.
    pub(super) async fn ask_all<T: FromRedisValue>(&mut self, cmd: &Cmd) -> RedisResult<Vec<T>> {
        match self {
            Self::One(one) => Ok(vec![cmd.query_async(one).await?]),
            Self::Cluster(cluster) => {
                let all = MultipleNodeRoutingInfo::AllMasters;
                let routing = RoutingInfo::MultiNode((all, None));
                match cluster.route_command(cmd.clone(), routing).await? {
                    Value::Map(answers) => answers
                        .into_iter()
                        .map(|(_, answer)| Ok(T::from_redis_value(answer)?))
                        .collect(),
                    answer => Ok(vec![T::from_redis_value(answer)?]),
                }
            }
        }
    }
}

/// The slot of a key: the CRC16 (XMODEM) of its hash tag.
fn slot(key: &[u8]) -> u16 {
    let begin = key.iter().position(|byte| *byte == b'{');
    let tag = begin.and_then(|begin| {
        let rest = &key[begin + 1..];
        let end = rest.iter().position(|byte| *byte == b'}')?;
        (end > 0).then_some(&rest[..end])
    });
    let mut crc = 0_u16;
    for byte in tag.unwrap_or(key) {
        crc ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            crc = crc << 1 ^ if crc & 0x8000 == 0 { 0 } else { 0x1021 };
        }
    }
    crc % 16_384
}

#[cfg(test)]
mod tests {
    use super::slot;

    /// As `CLUSTER KEYSLOT` of Redis 7.0.15 tells them.
    #[test]
    fn slots_are_those_of_redis() {
        assert_eq!(slot(b"123456789"), 12_739);
        assert_eq!(slot(b"x{123456789}y"), 12_739);
        assert_eq!(slot(b"foo"), 12_182);
        assert_eq!(slot(b"{}foo"), slot(b"{}foo"));
    }
}
