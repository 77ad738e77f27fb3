//! Commands, each as one call of a script.

use gangline_protocol::limits::{QUEUES_MAX, REASON_BYTES_MAX, REDRIVE_STEP_MAX};
use gangline_protocol::{
    Certificate, ExchangeReply, ExchangeRequest, ItemId, NewItem, QueueName, QueueSettings,
    QueueUid, SettingsPatch, SettleOutcome, StopOutcome,
};
use redis::Cmd;

use super::encode::{self, at_most, exact};
use super::fields::Fields;
use super::head::Head;
use super::scripts::Script;
use super::{Inner, not_found, record, replies, unexpected};
use crate::queue::command::{Batch, BatchPart};
use crate::queue::{Command, Draw, Queues, Refusal, Reply, Selection, cut_front};
use crate::store::StoreError;

type Answer = Result<Reply, StoreError>;

/// Tries to change settings while others change them, too.
const CONFIGURE_TRIES: usize = 16;

/// How full Redis may be, in percent of its `maxmemory`, before pushes are refused: what is there
/// already needs room while it is leased and settled.
const PUSH_PERCENT_MAX: u64 = 80;

/// The same for settles that spawn items; all others are taken while Redis runs.
const SPAWN_PERCENT_MAX: u64 = 95;

impl Inner {
    pub(super) async fn execute(&self, command: Command) -> Answer {
        let random = self.random.draw();
        match command {
            Command::Configure { queue, patch } => self.configure(&queue, &patch, random).await,
            Command::Push {
                queue,
                items,
                batch,
                seal,
            } => self.push(&queue, &items, batch, seal, random).await,
            Command::Seal { queue } => {
                let may_create = self.register(&queue).await?;
                let mut cmd = self.control(&queue, "seal");
                add_creation(&mut cmd, random, may_create, &QueueSettings::default());
                self.act(&queue, &cmd).await
            }
            Command::Pause { queue, paused } => {
                let mut cmd = self.control(&queue, "pause");
                cmd.arg(u8::from(paused));
                self.act(&queue, &cmd).await
            }
            Command::Stop {
                queue,
                outcome,
                reason,
                by,
            } => {
                let mut cmd = self.control(&queue, "stop");
                cmd.arg("stop").arg(match outcome {
                    StopOutcome::Success => "success",
                    StopOutcome::Failure => "failure",
                });
                for text in [reason, by] {
                    let text = text.map(|text| cut_front(text, REASON_BYTES_MAX));
                    cmd.arg(u8::from(text.is_some()))
                        .arg(text.as_deref().unwrap_or(""));
                }
                self.act(&queue, &cmd).await
            }
            Command::Delete { queue } => {
                let reply = self.act(&queue, &self.control(&queue, "delete")).await?;
                self.forget(&queue);
                Ok(reply)
            }
            Command::Cancel { queue, id } => {
                let mut cmd = self.control(&queue, "cancel");
                cmd.arg(exact(id.0));
                self.act_on_item(&queue, id, &cmd).await
            }
            Command::Redrive { queue, selection } => {
                let mut cmd = self.control(&queue, "redrive");
                match selection {
                    Selection::First(max) => {
                        cmd.arg(max.min(REDRIVE_STEP_MAX));
                    }
                    Selection::Items(ids) => {
                        // No number: these.
                        cmd.arg(0);
                        for id in ids.into_iter().take(REDRIVE_STEP_MAX) {
                            cmd.arg(exact(id.0));
                        }
                    }
                }
                self.act(&queue, &cmd).await
            }
            Command::Exchange { queue, request } => self.exchange(&queue, &request, random).await,
            Command::Revoke {
                queue,
                worker,
                counted,
            } => {
                let mut cmd = self.control(&queue, "revoke");
                cmd.arg(worker.as_str()).arg(u8::from(counted));
                self.act(&queue, &cmd).await
            }
            Command::Tick => {
                for queue in self.names().await? {
                    self.tick(&queue).await?;
                }
                Ok(Reply::Ticked)
            }
        }
    }

    fn control(&self, queue: &QueueName, act: &str) -> Cmd {
        let mut cmd = self.call(Script::Control, queue, None);
        cmd.arg(act);
        cmd
    }

    async fn act(&self, queue: &QueueName, cmd: &Cmd) -> Answer {
        self.act_on_item(queue, ItemId(0), cmd).await
    }

    async fn act_on_item(&self, queue: &QueueName, id: ItemId, cmd: &Cmd) -> Answer {
        let (tag, mut fields) = self.step(queue, cmd).await?;
        match tag.as_str() {
            "status" => {
                let head = Head::of(&mut fields)?;
                Ok(Reply::Status(Box::new(head.status(queue))))
            }
            "item" => Ok(Reply::Item(Box::new(record::item(&mut fields)?))),
            "redriven" => Ok(Reply::Redriven(fields.number()?)),
            "revoked" => Ok(Reply::Revoked(fields.optional_parsed()?)),
            "item_not_found" => Err(Refusal::ItemNotFound(queue.clone(), id).into()),
            "not_found" => {
                self.forget(queue);
                Err(not_found(queue))
            }
            "over" => Err(Refusal::Over(Box::new(over(queue, &mut fields)?)).into()),
            "too_many" => Err(Refusal::TooManyQueues(QUEUES_MAX).into()),
            other => Err(unexpected(other)),
        }
    }

    /// Looks after a queue whose time may have come; tells in how many milliseconds it comes next.
    pub(super) async fn tick(&self, queue: &QueueName) -> Result<Option<u64>, StoreError> {
        let cmd = self.control(queue, "tick");
        let (frame, _) = self.step_with_frame(queue, &cmd).await?;
        match frame.tag.as_str() {
            "ticked" => {
                // Its retention was over: this very step has removed it.
                if frame.over && frame.stepped_ms.is_none() {
                    self.forget(queue);
                }
                Ok(frame.due_in_ms)
            }
            other => Err(unexpected(other)),
        }
    }

    /// Settings are checked here and set there, if they are still those that were checked.
    async fn configure(&self, queue: &QueueName, patch: &SettingsPatch, random: u64) -> Answer {
        for _ in 0..CONFIGURE_TRIES {
            let before = match self.head(queue).await {
                Ok((head, _)) => Some(head.settings),
                Err(StoreError::Refused(Refusal::QueueNotFound(_))) => None,
                Err(error) => return Err(error),
            };
            let settings = patch.apply(before.as_ref().unwrap_or(&QueueSettings::default()));
            let settings = settings.map_err(Refusal::OutOfBounds)?;
            let may_create = self.register(queue).await?;
            let mut cmd = self.control(queue, "configure");
            add_creation(&mut cmd, random, may_create, &settings);
            let expected = before.map_or(String::new(), |before| encode::settings(&before));
            cmd.arg(expected);
            let (tag, mut fields) = self.step(queue, &cmd).await?;
            return match tag.as_str() {
                "changed" => continue,
                "status" => {
                    let head = Head::of(&mut fields)?;
                    Ok(Reply::Status(Box::new(head.status(queue))))
                }
                "over" => Err(Refusal::Over(Box::new(over(queue, &mut fields)?)).into()),
                "too_many" => Err(Refusal::TooManyQueues(QUEUES_MAX).into()),
                other => Err(unexpected(other)),
            };
        }
        Err(StoreError::Busy(CONFIGURE_TRIES))
    }

    async fn push(
        &self,
        queue: &QueueName,
        items: &[NewItem],
        batch: Option<Batch>,
        seal: bool,
        random: u64,
    ) -> Answer {
        self.link.check_room(PUSH_PERCENT_MAX)?;
        let may_create = self.register(queue).await?;
        // Without an Idempotency-Key nothing is read or written under the last key.
        let key = batch.as_ref().map_or("", |batch| &batch.key);
        let mut cmd = self.call(Script::Push, queue, Some(key));
        cmd.arg(Queues::new_uid(random).to_string())
            .arg(u8::from(may_create))
            .arg(u8::from(seal));
        match batch.as_ref().map(|batch| &batch.part) {
            None => cmd.arg("").arg("").arg(0).arg(0).arg(0),
            Some(BatchPart::Whole { hash }) => cmd.arg("whole").arg(&hash[..]).arg(0).arg(0).arg(0),
            Some(BatchPart::Chunk {
                lines_before,
                lines,
                hash,
                last,
            }) => cmd
                .arg("chunk")
                .arg(&hash[..])
                .arg(at_most(*lines_before))
                .arg(at_most(*lines))
                .arg(u8::from(*last)),
        };
        cmd.arg(encode::settings(&QueueSettings::default()));
        let assumed = self.fill.send(queue, items.len());
        encode::items(&mut cmd, items, assumed.used);
        let (tag, mut fields) = self.step(queue, &cmd).await?;
        let key = || batch.as_ref().map_or("".into(), |batch| batch.key.clone());
        match tag.as_str() {
            "pushed" => {
                let reply = replies::pushed(&mut fields)?;
                self.fill.learn(queue, assumed, &reply);
                Ok(Reply::Pushed(reply))
            }
            "sealed" => Err(Refusal::Sealed(queue.clone()).into()),
            "over" => Err(Refusal::Over(Box::new(over(queue, &mut fields)?)).into()),
            "mismatch" => Err(Refusal::IdempotencyMismatch {
                key: key(),
                at: fields.text()?,
            }
            .into()),
            "conflict" => Err(Refusal::StreamConflict {
                key: key(),
                lines: fields.number()?,
            }
            .into()),
            "too_many" => Err(Refusal::TooManyQueues(QUEUES_MAX).into()),
            other => Err(unexpected(other)),
        }
    }

    async fn exchange(&self, queue: &QueueName, request: &ExchangeRequest, random: u64) -> Answer {
        if request
            .settles
            .iter()
            .any(|settle| !settle.spawn.is_empty())
        {
            self.link.check_room(SPAWN_PERCENT_MAX)?;
        }
        let mut cmd = self.call(Script::Exchange, queue, None);
        add_exchange(&mut cmd, request, random);
        let (tag, mut fields) = self.step(queue, &cmd).await?;
        let reply = match tag.as_str() {
            "exchange" => replies::exchange(&mut fields, queue, request)?,
            "absent" | "gone" => {
                if tag == "absent" {
                    self.forget(queue);
                }
                let Some(uid) = request.uid else {
                    return Ok(Queues::default().exchange_without_queue(queue, request));
                };
                return Ok(Queues::over(tombstone(queue, uid, &mut fields)?, request));
            }
            "out_of_order" => {
                let number = request.lease.map_or(0, |lease| lease.number);
                let last = fields.number()?;
                return Err(Refusal::LeaseNumberOutOfOrder { number, last }.into());
            }
            other => return Err(unexpected(other)),
        };
        Ok(Reply::Exchange(Box::<ExchangeReply>::new(reply)))
    }
}

/// What a queue that is made gets: a uid and settings.
fn add_creation(cmd: &mut Cmd, random: u64, may_create: bool, settings: &QueueSettings) {
    cmd.arg(Queues::new_uid(random).to_string())
        .arg(u8::from(may_create))
        .arg(encode::settings(settings));
}

fn add_exchange(cmd: &mut Cmd, request: &ExchangeRequest, random: u64) {
    let ExchangeRequest {
        worker,
        session,
        nonce,
        uid,
        settles,
        started,
        progress,
        heartbeat: _,
        lease,
        leave,
    } = request;
    // One for each back-off, and one for a session.
    let retries = settles
        .iter()
        .filter(|settle| settle.outcome == SettleOutcome::Retry)
        .count();
    let mut draw = Draw::new(random);
    let draws: Vec<u8> = (0..=retries)
        .flat_map(|_| draw.next().to_be_bytes())
        .collect();
    cmd.arg(worker.as_str())
        .arg(session.map_or(String::new(), |id| id.to_string()))
        .arg(nonce.map_or(String::new(), |nonce| nonce.to_string()))
        .arg(uid.map_or(String::new(), |uid| uid.to_string()))
        .arg(draws);
    match lease {
        // Twenty digits: texts of the same length compare like the numbers.
        Some(lease) => cmd
            .arg(format!("{:020}", lease.number))
            .arg(lease.max)
            .arg(lease.starting.unwrap_or(u32::MAX))
            .arg(at_most(lease.wait_ms)),
        None => cmd.arg("").arg(0).arg(0).arg(0),
    };
    cmd.arg(u8::from(*leave))
        .arg(started.len())
        .arg(encode::count_settles(settles))
        .arg(encode::progress(progress));
    for id in started {
        cmd.arg(exact(id.0));
    }
    encode::settles(cmd, settles);
}

/// Reads the certificate behind a refusal: of the queue, or of one that is gone.
fn over(queue: &QueueName, fields: &mut Fields) -> Result<Certificate, StoreError> {
    let uid = fields.parsed()?;
    tombstone(queue, uid, fields)
}

fn tombstone(
    queue: &QueueName,
    uid: QueueUid,
    fields: &mut Fields,
) -> Result<Certificate, StoreError> {
    let head = Head::optional(fields)?;
    let known = head.and_then(|head| head.certificate(queue));
    Ok(known.unwrap_or_else(|| Queues::forgotten(queue, uid)))
}
