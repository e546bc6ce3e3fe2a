//! A mail server that takes its time, refuses, hangs up, and keeps mails without a word.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream};
use tokio::time::sleep;

use crate::simulation::world::World;

/// What one direction of a connection holds.
const WINDOW: usize = 64 * 1024;

/// Final dots are worse off than other steps, by this much.
const DOT: u32 = 3;

/// What the server does about one step.
enum Act {
    /// Answers as it should.
    Answer,
    /// Answers this instead.
    Say(&'static str),
    /// Hangs up.
    Close,
    /// Never answers.
    Hush,
}

/// A new connection to the server.
pub(in crate::simulation) fn dial(world: &Arc<World>) -> DuplexStream {
    let (near, far) = tokio::io::duplex(WINDOW);
    let world = world.clone();
    tokio::spawn(async move {
        // It ends when either side hangs up.
        let _ = Session::new(world, far).serve().await;
    });
    near
}

struct Session {
    world: Arc<World>,
    stream: BufReader<DuplexStream>,
    order: Option<String>,
}

/// The connection is over.
struct Over;

impl Session {
    fn new(world: Arc<World>, stream: DuplexStream) -> Self {
        Self {
            world,
            stream: BufReader::new(stream),
            order: None,
        }
    }

    async fn serve(mut self) -> Result<(), Over> {
        self.step("220 here", &["421 busy"]).await?;
        loop {
            let line = self.line().await?;
            let verb = line.split([' ', ':']).next().unwrap_or_default();
            match verb {
                "EHLO" => self.step("250-here\r\n250 PIPELINING", &[]).await?,
                "MAIL" => self.step("250 ok", &["450 not now"]).await?,
                "RCPT" => {
                    let order = line.split(['<', '@']).nth(1).unwrap_or_default();
                    self.order = Some(order.to_owned());
                    self.step("250 ok", &["450 not now", "550 nobody"]).await?;
                }
                "DATA" => {
                    if self
                        .decide("354 go on", &["451 not now", "250 what"])
                        .await?
                    {
                        let mail = self.mail().await?;
                        self.judge(&mail).await?;
                    }
                }
                "QUIT" => return self.say("221 bye").await,
                _ => self.say("250 ok").await?,
            }
        }
    }

    async fn line(&mut self) -> Result<String, Over> {
        let mut line = String::new();
        match self.stream.read_line(&mut line).await {
            Ok(length) if length > 0 && line.ends_with("\r\n") => Ok(line.trim_end().to_owned()),
            _ => Err(Over),
        }
    }

    async fn mail(&mut self) -> Result<Vec<u8>, Over> {
        let mut mail = Vec::new();
        loop {
            let line = self.line().await?;
            if line == "." {
                return Ok(mail);
            }
            mail.extend_from_slice(line.as_bytes());
            mail.push(b'\n');
        }
    }

    async fn say(&mut self, words: &str) -> Result<(), Over> {
        let line = format!("{words}\r\n");
        let said = self.stream.get_mut().write_all(line.as_bytes()).await;
        said.map_err(|_| Over)
    }

    /// Waits for the client to go, saying nothing.
    async fn hush(&mut self) -> Over {
        while self.line().await.is_ok() {}
        Over
    }

    /// Mostly soon, sometimes after seconds, now and then after the client's patience.
    async fn dawdle(&self) {
        let slow = self.world.climate.slow;
        let millis = self.world.with_rng(|rng, fair| {
            let luck = if fair { u32::MAX } else { rng.u32(..1000) };
            match luck {
                _ if luck < slow / 4 => rng.u64(4_000..30_000),
                _ if luck < slow => rng.u64(300..4_000),
                _ => rng.u64(1..30),
            }
        });
        sleep(Duration::from_millis(millis)).await;
    }

    fn act(&self, others: &[&'static str]) -> Act {
        let lost = self.world.climate.lost;
        self.world.with_rng(|rng, fair| {
            let luck = if fair { u32::MAX } else { rng.u32(..1000) };
            match luck {
                _ if luck < lost / 4 => Act::Close,
                _ if luck < lost / 2 => Act::Hush,
                _ if luck < lost => rng
                    .choice(others)
                    .map_or(Act::Answer, |words| Act::Say(words)),
                _ => Act::Answer,
            }
        })
    }

    /// One step; whether it was answered as it should be.
    async fn decide(&mut self, answer: &str, others: &[&'static str]) -> Result<bool, Over> {
        self.dawdle().await;
        match self.act(others) {
            Act::Answer => self.say(answer).await.map(|()| true),
            Act::Say(words) => {
                self.world.count("refusals");
                self.say(words).await.map(|()| false)
            }
            Act::Close => Err(Over),
            Act::Hush => Err(self.hush().await),
        }
    }

    async fn step(&mut self, answer: &str, others: &[&'static str]) -> Result<(), Over> {
        self.decide(answer, others).await.map(|_| ())
    }

    /// The whole mail is here. Whether the client still listens makes no difference.
    async fn judge(&mut self, mail: &[u8]) -> Result<(), Over> {
        self.dawdle().await;
        let order = self.order.take().ok_or(Over)?;
        let (luck, kept) = self.world.with_rng(|rng, fair| {
            let luck = if fair { u32::MAX } else { rng.u32(..1000) };
            (luck, rng.bool())
        });
        let lost = DOT * self.world.climate.lost;
        let refusals = [
            "554 never",
            "451 not now",
            "421 closing",
            "454 slower",
            "354 what",
        ];
        if luck < lost {
            let words = self.world.with_rng(|rng, _| rng.choice(refusals));
            self.world.count("mails refused");
            let words = words.unwrap_or_default();
            self.say(words).await?;
            return if words.starts_with("421") {
                Err(Over)
            } else {
                Ok(())
            };
        }
        if luck < 2 * lost {
            if kept {
                self.accept(&order, mail);
            }
            self.world.count("replies lost");
            if luck % 2 == 0 {
                return Err(Over);
            }
            return Err(self.hush().await);
        }
        self.accept(&order, mail);
        self.dawdle().await;
        self.say("250 taken").await
    }

    fn accept(&self, order: &str, mail: &[u8]) {
        self.world
            .note(usize::MAX, "server accepts", format_args!("order {order}"));
        self.world.count("mails accepted");
        if let Some(mailing) = &self.world.mailing {
            self.world.judge(mailing.accept(order, mail));
        }
    }
}
