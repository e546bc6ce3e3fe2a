//! One conversation of the mail server.

use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use smtp_proto::Request;
use smtp_proto::request::receiver::{DataReceiver, RequestReceiver};

use super::script::{Act, Fault, ServerTls, Step};
use super::wire::{Breakable, Next, Wire};
use super::{Mail, PASSWORD, Shared, USER, lock};

pub(super) async fn connection<S: Breakable>(stream: S, number: usize, shared: &Shared) {
    let mut session = Session {
        shared,
        number,
        from: String::new(),
        to: Vec::new(),
        authenticated: false,
    };
    let mut plain = Wire::new(stream);
    if shared.script.tls != ServerTls::Implicit {
        if !matches!(
            session.answer(&mut plain, Step::Greeting, "220 test").await,
            Next::On
        ) {
            return;
        }
        if !matches!(session.commands(&mut plain).await, Next::StartTls) {
            return;
        }
    } else if !session.before_tls(&mut plain).await {
        return;
    }
    let Ok(tls) = shared.tls.accept(plain.stream).await else {
        return;
    };
    let mut tls = Wire::new(tls);
    if shared.script.tls == ServerTls::Implicit
        && !matches!(
            session.answer(&mut tls, Step::Greeting, "220 test").await,
            Next::On
        )
    {
        return;
    }
    session.commands(&mut tls).await;
}

struct Session<'a> {
    shared: &'a Shared,
    number: usize,
    from: String,
    to: Vec<String>,
    authenticated: bool,
}

impl Session<'_> {
    /// The fault that strikes at this step, if one does.
    fn fault(&self, step: Step) -> Option<Fault> {
        let mut state = lock(&self.shared.state);
        let fault = state.faults.iter_mut().find(|fault| {
            fault.step == step && fault.left > 0 && fault.meets(self.number, &self.to)
        })?;
        if fault.skip > 0 {
            fault.skip -= 1;
            return None;
        }
        fault.left -= 1;
        let fault = fault.clone();
        state.struck += 1;
        Some(fault)
    }

    /// The fault at this step. Held steps have been held when this returns.
    async fn act(&self, step: Step) -> Option<Act> {
        self.held(self.fault(step).map(|fault| fault.act)).await
    }

    async fn held(&self, act: Option<Act>) -> Option<Act> {
        if act == Some(Act::Hold) {
            self.shared.released.cancelled().await;
            return None;
        }
        act
    }

    async fn answer<S: Breakable>(&mut self, wire: &mut Wire<S>, step: Step, line: &str) -> Next {
        let act = self.act(step).await;
        wire.act(act, line).await
    }

    async fn before_tls<S: Breakable>(&mut self, wire: &mut Wire<S>) -> bool {
        match self.act(Step::Tls).await {
            None => true,
            Some(act) => {
                wire.act(Some(act), "220 this is not TLS").await;
                false
            }
        }
    }

    /// Commands until the connection ends or changes to TLS.
    async fn commands<S: Breakable>(&mut self, wire: &mut Wire<S>) -> Next {
        let mut requests = RequestReceiver::default();
        loop {
            let bytes = std::mem::take(&mut wire.peek);
            let mut rest = bytes.iter();
            loop {
                let before = rest.as_slice();
                let request = match requests.ingest(&mut rest) {
                    Ok(request) => request.into_owned(),
                    Err(smtp_proto::Error::NeedsMoreData { .. }) => break,
                    Err(_) => {
                        if !wire.say("500 5.5.2 not understood").await {
                            return Next::End;
                        }
                        continue;
                    }
                };
                let line = &before[..before.len() - rest.as_slice().len()];
                self.hear(line);
                if let Request::Data = request {
                    wire.peek = rest.as_slice().to_vec();
                    if !matches!(self.data(wire).await, Next::On) {
                        return Next::End;
                    }
                    rest = [].iter();
                    break;
                }
                match self.request(wire, request, rest.as_slice()).await {
                    Next::On => {}
                    other => return other,
                }
            }
            drop(rest);
            if wire.peek.is_empty() && !wire.read().await {
                return Next::End;
            }
        }
    }

    fn hear(&self, line: &[u8]) {
        let line = String::from_utf8_lossy(line).trim().to_owned();
        lock(&self.shared.state).heard.push((self.number, line));
    }

    async fn request<S: Breakable>(
        &mut self,
        wire: &mut Wire<S>,
        request: Request<String>,
        behind: &[u8],
    ) -> Next {
        match request {
            Request::Ehlo { .. } | Request::Helo { .. } => {
                let offers = self.offers();
                self.answer(wire, Step::Ehlo, &offers).await
            }
            Request::StartTls => match self.answer(wire, Step::StartTls, "220 go on").await {
                Next::On => Next::StartTls,
                other => other,
            },
            Request::Auth {
                initial_response,
                mechanism,
            } => {
                let line = self.auth(wire, mechanism, initial_response).await;
                self.answer(wire, Step::Auth, line).await
            }
            Request::Mail { .. } if !self.shared.script.auth.is_empty() && !self.authenticated => {
                self.answer(wire, Step::Mail, "530 5.7.0 authentication required")
                    .await
            }
            Request::Mail { from } => {
                // A pipelined flight must not run ahead of what was offered.
                if !self.shared.script.pipelining && !behind.is_empty() {
                    return self
                        .answer(wire, Step::Mail, "503 5.5.1 no pipelining here")
                        .await;
                }
                self.from = from.address;
                self.to.clear();
                self.answer(wire, Step::Mail, "250 2.1.0 sender ok").await
            }
            Request::Rcpt { to } => {
                self.to.push(to.address);
                self.answer(wire, Step::Rcpt, "250 2.1.5 recipient ok")
                    .await
            }
            Request::Rset => {
                self.to.clear();
                self.answer(wire, Step::Rset, "250 2.0.0 reset").await
            }
            Request::Noop { .. } => self.answer(wire, Step::Noop, "250 2.0.0 here").await,
            Request::Quit => {
                wire.say("221 2.0.0 bye").await;
                Next::End
            }
            _ => wire.act(None, "502 5.5.1 not here").await,
        }
    }

    fn offers(&self) -> String {
        let script = &self.shared.script;
        let auth = format!("AUTH {}", script.auth);
        let size = script.size.map(|size| format!("SIZE {size}"));
        let mut lines = vec!["test.example"];
        lines.extend(size.as_deref());
        lines.extend(script.pipelining.then_some("PIPELINING"));
        lines.extend(script.smtputf8.then_some("SMTPUTF8"));
        lines.extend((script.tls == ServerTls::StartTls).then_some("STARTTLS"));
        lines.extend((!script.auth.is_empty()).then_some(auth.as_str()));
        let last = lines.len() - 1;
        let line =
            |(i, line): (usize, &&str)| format!("250{}{line}", if i == last { ' ' } else { '-' });
        lines
            .iter()
            .enumerate()
            .map(line)
            .collect::<Vec<_>>()
            .join("\r\n")
    }

    async fn auth<S: Breakable>(
        &mut self,
        wire: &mut Wire<S>,
        mechanism: u64,
        initial: String,
    ) -> &'static str {
        let decode = |text: &str| {
            String::from_utf8_lossy(&BASE64_STANDARD.decode(text).unwrap_or_default()).into_owned()
        };
        let right = match mechanism {
            smtp_proto::AUTH_PLAIN => decode(&initial) == format!("\0{USER}\0{PASSWORD}"),
            smtp_proto::AUTH_XOAUTH2 => {
                let right =
                    decode(&initial) == format!("user={USER}\x01auth=Bearer {PASSWORD}\x01\x01");
                if !right {
                    wire.say("334 eyJzdGF0dXMiOiI0MDEifQ==").await;
                    self.line(wire).await;
                }
                right
            }
            smtp_proto::AUTH_LOGIN => {
                wire.say("334 VXNlcm5hbWU6").await;
                let user = decode(&self.line(wire).await);
                wire.say("334 UGFzc3dvcmQ6").await;
                let password = decode(&self.line(wire).await);
                user == USER && password == PASSWORD
            }
            _ => false,
        };
        self.authenticated = right;
        if right {
            "235 2.7.0 welcome"
        } else {
            "535 5.7.8 wrong user or password"
        }
    }

    async fn line<S: Breakable>(&self, wire: &mut Wire<S>) -> String {
        loop {
            if let Some(end) = wire.peek.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = wire.peek.drain(..=end).collect();
                return String::from_utf8_lossy(&line).trim().to_owned();
            }
            if !wire.read().await {
                return String::new();
            }
        }
    }

    async fn data<S: Breakable>(&mut self, wire: &mut Wire<S>) -> Next {
        if self.to.is_empty() {
            return wire.act(None, "503 5.5.1 no recipient").await;
        }
        match self.act(Step::Data).await {
            Some(Act::Say(line)) if !line.starts_with("354") => {
                return wire.act(Some(Act::Say(line)), "").await;
            }
            act => match wire.act(act, "354 go on").await {
                Next::On => {}
                other => return other,
            },
        }
        match self.act(Step::Body).await {
            None => {}
            Some(Act::Trickle(time)) => wire.slow_down(time),
            Some(act) => match wire.act(Some(act), "").await {
                Next::On => {}
                other => return other,
            },
        }
        let mut message = Vec::new();
        let mut receiver = DataReceiver::new();
        loop {
            let bytes = std::mem::take(&mut wire.peek);
            let mut rest = bytes.iter();
            if receiver.ingest(&mut rest, &mut message) {
                wire.peek = rest.as_slice().to_vec();
                break;
            }
            if !wire.read().await {
                self.shared.cut.send_replace(Some(message));
                return Next::End;
            }
        }
        wire.pause = Duration::ZERO;
        self.dot(wire, message).await
    }

    async fn dot<S: Breakable>(&mut self, wire: &mut Wire<S>, bytes: Vec<u8>) -> Next {
        let fault = self.fault(Step::Dot);
        let keeps = fault.as_ref().is_none_or(Fault::keeps);
        if !wire.peek.is_empty() {
            lock(&self.shared.state).rides += 1;
        }
        if keeps {
            self.keep(bytes);
        }
        let act = self.held(fault.map(|fault| fault.act)).await;
        self.to.clear();
        wire.act(act, "250 2.0.0 queued as TEST").await
    }

    fn keep(&self, bytes: Vec<u8>) {
        let mail = Mail {
            from: self.from.clone(),
            to: self.to.clone(),
            bytes,
            connection: self.number,
        };
        let count = {
            let mut state = lock(&self.shared.state);
            let name = self.shared.script.recognises;
            let key = name.and_then(|name| mail.header(name).map(|key| (name, key)));
            if let Some((name, key)) = key
                && !state.known.insert(key)
            {
                let is_same = |kept: &Mail| kept.bytes == mail.bytes;
                assert!(
                    state.mails.iter().any(is_same),
                    "other bytes under one {name}"
                );
                state.recognised += 1;
                return;
            }
            state.mails.push(mail.clone());
            state.mails.len()
        };
        if let Some(folder) = &self.shared.script.keep_in {
            let _ = std::fs::create_dir_all(folder);
            let _ = std::fs::write(folder.join(format!("{count:05}.eml")), &mail.bytes);
        }
        self.shared.accepted.send_replace(count);
    }
}
