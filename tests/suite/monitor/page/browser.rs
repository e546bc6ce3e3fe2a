//! Headless Chromium, by the WebDriver protocol: <https://www.w3.org/TR/webdriver2/>.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Chromium's arguments: nothing of its own goes over the network.
const ARGUMENTS: [&str; 8] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

/// How long a condition may take to become true.
const PATIENCE: Duration = Duration::from_secs(30);

/// A browser with one tab. It ends when this is dropped.
///
/// Its calls block: a test gives its server a thread of its own.
pub struct Browser {
    driver: Child,
    port: u16,
    session: String,
    _profile: TempDir,
}

impl Browser {
    pub fn start() -> Self {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver on the PATH: run tests/page/run.sh");
        let port = reported_port(&mut driver);
        let profile = tempfile::tempdir().unwrap();
        let mut arguments = ARGUMENTS.map(str::to_owned).to_vec();
        arguments.push(format!("--user-data-dir={}", profile.path().display()));
        let mut browser = Self {
            driver,
            port,
            session: String::new(),
            _profile: profile,
        };
        let wanted = json!({
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
            "goog:chromeOptions": {"args": arguments},
            "timeouts": {"script": PATIENCE.as_millis()},
        });
        let wanted = json!({"capabilities": {"alwaysMatch": wanted}});
        let session = browser.call("POST", "/session", &wanted);
        let id = session["sessionId"].as_str().expect("a session");
        browser.session = format!("/session/{id}");
        browser
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.asked(method, path, body).expect("the driver answers");
        assert!(answer["error"].is_null(), "{method} {path}: {answer}");
        answer
    }

    fn asked(&self, method: &str, path: &str, body: &Value) -> std::io::Result<Value> {
        let body = body.to_string();
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(PATIENCE * 2))?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.port,
            body.len(),
        )?;
        // The driver keeps the connection, whatever the request.
        let mut stream = BufReader::new(stream);
        let mut length = 0;
        loop {
            let mut line = String::new();
            stream.read_line(&mut line)?;
            let Some((name, value)) = line.split_once(':') else {
                if line.trim().is_empty() {
                    break;
                }
                continue;
            };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        let mut body: Value = serde_json::from_slice(&body)?;
        Ok(body["value"].take())
    }

    fn of_session(&self, path: &str, body: &Value) -> Value {
        self.call("POST", &format!("{}/{path}", self.session), body)
    }

    /// A command of the DevTools protocol: <https://chromedevtools.github.io/devtools-protocol/>.
    pub fn devtools(&self, command: &str, parameters: &Value) -> Value {
        let body = json!({"cmd": command, "params": parameters});
        self.of_session("goog/cdp/execute", &body)
    }

    /// How wide and high the window is, in CSS pixels, and whether its user prefers dark colours.
    pub fn looks(&self, width: u32, height: u32, dark: bool) {
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", &size);
        let scheme = if dark { "dark" } else { "light" };
        let feature = json!({"name": "prefers-color-scheme", "value": scheme});
        self.devtools(
            "Emulation.setEmulatedMedia",
            &json!({"features": [feature]}),
        );
    }

    pub fn open(&self, url: &str) {
        self.of_session("url", &json!({"url": url}));
    }

    /// The value of an expression in the page.
    pub fn value(&self, expression: &str) -> Value {
        let script = json!({"script": format!("return {expression};"), "args": []});
        self.of_session("execute/sync", &script)
    }

    /// The text that a user sees of the first element that a selector finds.
    pub fn text(&self, selector: &str) -> String {
        let value = self.value(&format!("document.querySelector({selector:?}).innerText"));
        value.as_str().expect("a text").to_owned()
    }

    /// The value of an expression once it is true in some way: looks at each change of the document.
    pub fn wait(&self, expression: &str) -> Value {
        let script = format!(
            "const done = arguments[0];
             const look = () => {{
               const found = {expression};
               if (found) {{ changes.disconnect(); done(found); }}
             }};
             const changes = new MutationObserver(look);
             const all = {{ subtree: true, childList: true, attributes: true, characterData: true }};
             changes.observe(document, all);
             look();"
        );
        self.of_session("execute/async", &json!({"script": script, "args": []}))
    }

    /// Presses and releases a key.
    pub fn press(&self, key: &str, code: u32) {
        for kind in ["rawKeyDown", "keyUp"] {
            let stroke =
                json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code});
            self.devtools("Input.dispatchKeyEvent", &stroke);
        }
    }

    /// What the console says since the last look: errors, and violations of the content policy.
    pub fn console(&self) -> Vec<String> {
        let entries = self.of_session("se/log", &json!({"type": "browser"}));
        let entries = entries.as_array().expect("a log");
        entries.iter().map(ToString::to_string).collect()
    }

    /// The addresses that were asked for since the last look.
    pub fn requests(&self) -> Vec<String> {
        let entries = self.of_session("se/log", &json!({"type": "performance"}));
        let messages = entries.as_array().expect("a log").iter();
        let messages = messages.map(|entry| {
            let message = entry["message"].as_str().expect("a message");
            serde_json::from_str::<Value>(message).unwrap()["message"].take()
        });
        messages
            .filter(|message| message["method"] == "Network.requestWillBeSent")
            .map(|message| {
                let url = message["params"]["request"]["url"].as_str();
                url.expect("an address").to_owned()
            })
            .collect()
    }

    /// Keeps a picture of the whole page as target/page/NAME.png.
    pub fn picture(&self, name: &str) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/page");
        std::fs::create_dir_all(&folder).unwrap();
        let mut whole = self.devtools("Page.getLayoutMetrics", &json!({}))["cssContentSize"].take();
        whole["scale"] = json!(1);
        let whole = json!({"captureBeyondViewport": true, "clip": whole});
        let picture = self.devtools("Page.captureScreenshot", &whole);
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(picture["data"].as_str().expect("a picture"))
            .unwrap();
        std::fs::write(folder.join(format!("{name}.png")), bytes).unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends the browser only when it is asked to.
        let _ = self.asked("DELETE", &self.session, &json!({}));
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// The port that the driver says it listens on.
fn reported_port(driver: &mut Child) -> u16 {
    let mut out = driver.stdout.take().unwrap();
    let mut reported = Vec::new();
    let mut byte = [0];
    while out.read(&mut byte).unwrap() == 1 {
        reported.push(byte[0]);
        let text = String::from_utf8_lossy(&reported);
        if let Some(port) = text
            .split("started successfully on port ")
            .nth(1)
            .and_then(|rest| rest.split_once('.'))
        {
            return port.0.parse().unwrap();
        }
    }
    panic!("chromedriver ended: {}", String::from_utf8_lossy(&reported));
}
