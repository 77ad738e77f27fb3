//! Pushes: new items, once each, however often they are sent.

use std::collections::HashMap;

use gangline_protocol::{ItemId, NewItem, PushReply, Pushed, QueueName, QueueUid, limits};

use super::command::{Batch, BatchPart, Input, Refusal, Reply};
use super::fact::{BatchRecord, Fact, ItemRecord, JsonText, Record, StreamRecord, Taken};
use super::queues::{Effects, Queues, Step};
use super::state::{KeyHash, Queue, key_hash};

impl Queues {
    pub(super) fn push(
        &mut self,
        input: Input,
        name: &QueueName,
        items: Vec<NewItem>,
        batch: Option<Batch>,
        seal: bool,
        effects: &mut Effects,
    ) -> Result<Reply, Refusal> {
        let before = match &batch {
            Some(batch) => match self.taken_before(input.now_ms(), name, batch)? {
                Before::All(reply) => return Ok(Reply::Pushed(reply)),
                Before::Part(stream) => Some(stream),
                Before::Nothing => None,
            },
            None => None,
        };
        if let Some(stream) = &before {
            // The rest of a stream belongs to the queue that has its begin.
            let uid = QueueUid(stream.uid);
            if self.by_name.get(name).is_none_or(|queue| queue.uid != uid) {
                return Err(Refusal::Over(Box::new(self.tombstone(name, uid))));
            }
        }
        self.ensure(input, name, effects)?;
        let mut record = None;
        let reply = self.step(input, name, effects, |step| {
            let pushed = step.push(items)?;
            if seal && step.queue.ended.is_none() && !step.queue.sealed {
                step.happen(Fact::Sealed);
            }
            let mut reply = step.queue.push_reply(pushed);
            record = batch.map(|batch| batch_record(name, input.now_ms(), batch, before, &reply));
            if let Some(BatchRecord {
                taken: Taken::Stream(stream),
                ..
            }) = &record
            {
                // As in the answer to a repeat: a caller cannot know which of the two it is.
                (reply.added, reply.duplicates) = (stream.added, stream.duplicates);
            }
            Ok(Reply::Pushed(reply))
        })?;
        if let Some(batch) = record {
            let record = Record::Batch(batch);
            effects.record(&record);
            let Record::Batch(batch) = record else {
                unreachable!("made two lines above")
            };
            self.keep_batch(batch);
        }
        Ok(reply)
    }

    /// Looks what of a push under an `Idempotency-Key` was taken before.
    fn taken_before(
        &self,
        now_ms: u64,
        name: &QueueName,
        batch: &Batch,
    ) -> Result<Before, Refusal> {
        let mismatch = |at: String| Refusal::IdempotencyMismatch {
            key: batch.key.clone(),
            at,
        };
        let taken = self
            .batch(now_ms, name, &batch.key)
            .map(|record| &record.taken);
        match (&batch.part, taken) {
            (BatchPart::Whole { .. }, None) => Ok(Before::Nothing),
            (
                BatchPart::Whole { hash },
                Some(Taken::Whole {
                    hash: old,
                    uid,
                    items,
                    sealed,
                }),
            ) => {
                if hash != old {
                    return Err(mismatch(String::new()));
                }
                let pushed = items.iter().map(|(id, duplicate)| Pushed {
                    id: ItemId(*id),
                    duplicate: *duplicate,
                });
                Ok(Before::All(push_reply(
                    QueueUid(*uid),
                    pushed.collect(),
                    *sealed,
                )))
            }
            (BatchPart::Whole { .. }, Some(Taken::Stream(_))) => {
                Err(mismatch(": that was a stream".into()))
            }
            (BatchPart::Chunk { .. }, Some(Taken::Whole { .. })) => {
                Err(mismatch(": that was no stream".into()))
            }
            (BatchPart::Chunk { lines_before, .. }, None) if *lines_before == 0 => {
                Ok(Before::Nothing)
            }
            (BatchPart::Chunk { .. }, None) => Err(Refusal::StreamConflict {
                key: batch.key.clone(),
                lines: 0,
            }),
            (
                BatchPart::Chunk {
                    lines_before,
                    lines,
                    hash,
                    ..
                },
                Some(Taken::Stream(stream)),
            ) => {
                let end = lines_before + lines;
                if end == stream.lines && *hash != stream.hash {
                    return Err(mismatch(format!(" within the first {end} lines")));
                }
                if stream.complete && end > stream.lines {
                    return Err(mismatch(format!(", of {} lines", stream.lines)));
                }
                if stream.complete || (end == stream.lines && *lines > 0) {
                    let reply = PushReply {
                        uid: QueueUid(stream.uid),
                        items: Vec::new(),
                        added: stream.added,
                        duplicates: stream.duplicates,
                        sealed: stream.sealed,
                    };
                    // A last chunk that was taken, but not yet as the last one, goes on below.
                    if stream.complete || !matches!(batch.part, BatchPart::Chunk { last: true, .. })
                    {
                        return Ok(Before::All(reply));
                    }
                }
                if *lines_before != stream.lines {
                    let lines = stream.lines;
                    return Err(Refusal::StreamConflict {
                        key: batch.key.clone(),
                        lines,
                    });
                }
                Ok(Before::Part(stream.clone()))
            }
        }
    }
}

enum Before {
    Nothing,
    Part(StreamRecord),
    All(PushReply),
}

fn push_reply(uid: QueueUid, items: Vec<Pushed>, sealed: bool) -> PushReply {
    let duplicates = items.iter().filter(|pushed| pushed.duplicate).count() as u64;
    PushReply {
        uid,
        added: items.len() as u64 - duplicates,
        duplicates,
        items,
        sealed,
    }
}

fn batch_record(
    name: &QueueName,
    at_ms: u64,
    batch: Batch,
    before: Option<StreamRecord>,
    reply: &PushReply,
) -> BatchRecord {
    let taken = match batch.part {
        BatchPart::Whole { hash } => Taken::Whole {
            hash,
            uid: reply.uid.0,
            items: reply
                .items
                .iter()
                .map(|pushed| (pushed.id.0, pushed.duplicate))
                .collect(),
            sealed: reply.sealed,
        },
        BatchPart::Chunk {
            lines_before,
            lines,
            hash,
            last,
        } => {
            let (added, duplicates) =
                before.map_or((0, 0), |stream| (stream.added, stream.duplicates));
            Taken::Stream(StreamRecord {
                uid: reply.uid.0,
                lines: lines_before + lines,
                hash,
                added: added + reply.added,
                duplicates: duplicates + reply.duplicates,
                complete: last,
                sealed: reply.sealed,
            })
        }
    };
    BatchRecord {
        queue: name.full().into(),
        key: batch.key,
        at_ms,
        taken,
    }
}

impl Queue {
    fn push_reply(&self, pushed: Vec<Pushed>) -> PushReply {
        push_reply(self.uid, pushed, self.sealed)
    }
}

impl Step<'_> {
    /// Adds the items whose keys are new. A push that adds nothing new is answered in any phase.
    fn push(&mut self, items: Vec<NewItem>) -> Result<Vec<Pushed>, Refusal> {
        let (pushed, records) = self.sort_out(items);
        if !records.is_empty() {
            self.queue.refuse_if_over()?;
            if self.queue.sealed {
                return Err(Refusal::Sealed(self.queue.name.clone()));
            }
            self.happen(Fact::Pushed {
                at_ms: self.now_ms,
                items: records,
            });
        }
        Ok(pushed)
    }

    /// Adds items that a settle spawned; their keys are unique in the same way.
    pub(super) fn spawn(&mut self, items: Vec<NewItem>) {
        let (_, records) = self.sort_out(items);
        if !records.is_empty() {
            self.happen(Fact::Pushed {
                at_ms: self.now_ms,
                items: records,
            });
        }
    }

    fn sort_out(&self, items: Vec<NewItem>) -> (Vec<Pushed>, Vec<ItemRecord>) {
        let mut next = self.queue.items.next_id();
        let mut pushed = Vec::with_capacity(items.len());
        let mut records = Vec::with_capacity(items.len());
        let mut new_keys: HashMap<KeyHash, ItemId> = HashMap::new();
        for item in items {
            let hash = item.key.as_ref().map(key_hash);
            let known = hash.and_then(|hash| {
                self.queue
                    .keys
                    .get(&hash)
                    .or_else(|| new_keys.get(&hash))
                    .copied()
            });
            if let Some(id) = known {
                pushed.push(Pushed {
                    id,
                    duplicate: true,
                });
                continue;
            }
            if let Some(hash) = hash {
                new_keys.insert(hash, next);
            }
            pushed.push(Pushed {
                id: next,
                duplicate: false,
            });
            next.0 += 1;
            records.push(self.record_of(item));
        }
        (pushed, records)
    }

    fn record_of(&self, item: NewItem) -> ItemRecord {
        let NewItem {
            payload,
            key,
            priority,
            delay_ms,
            time_limit_ms,
            max_attempts,
            traceparent,
        } = item;
        ItemRecord {
            payload: JsonText(payload),
            key: key.map(|key| key.as_str().into()),
            priority: priority.unwrap_or(limits::PRIORITY_DEFAULT),
            due_ms: delay_ms
                .filter(|delay| *delay > 0)
                .map(|delay| self.now_ms + delay),
            time_limit_ms,
            max_attempts,
            traceparent,
        }
    }
}
