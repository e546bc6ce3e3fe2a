//! A server whose clock is ahead of this machine's, which is the same as a machine whose clock is
//! behind.

use std::time::{Duration, SystemTime};

use aws_sdk_dynamodb::primitives::{DateTime, DateTimeFormat};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// The header in front of a date, as the embedded server writes it.
const DATE: &[u8] = b"\r\ndate: ";

/// A date as HTTP writes it has always this length.
const LENGTH: usize = "Fri, 27 Nov 2026 09:00:00 GMT".len();

/// The address of a proxy to the server at `url` whose answers have dates that are ahead by this.
pub async fn ahead(url: &str, by: Duration) -> String {
    let server = url.strip_prefix("http://").unwrap().to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(between(client, server.clone(), by));
        }
    });
    here
}

/// Passes on what both say until one of them ends.
async fn between(client: TcpStream, server: String, by: Duration) -> std::io::Result<()> {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = TcpStream::connect(server).await?.into_split();
    let asking = tokio::io::copy(&mut from_client, &mut to_server);
    let answering = async {
        let mut answer = vec![0; 1 << 16];
        loop {
            let length = from_server.read(&mut answer).await?;
            if length == 0 {
                return Ok::<_, std::io::Error>(0);
            }
            shift(&mut answer[..length], by);
            to_client.write_all(&answer[..length]).await?;
        }
    };
    tokio::select! {
        ended = asking => ended?,
        ended = answering => ended?,
    };
    Ok(())
}

/// The head of an answer comes in one piece.
fn shift(answer: &mut [u8], by: Duration) {
    let Some(at) = answer.windows(DATE.len()).position(|part| part == DATE) else {
        return;
    };
    let date = &mut answer[at + DATE.len()..][..LENGTH];
    let text = std::str::from_utf8(date).unwrap();
    let time = DateTime::from_str(text, DateTimeFormat::HttpDate).unwrap();
    let time = SystemTime::try_from(time).unwrap() + by;
    let text = DateTime::from(time).fmt(DateTimeFormat::HttpDate).unwrap();
    date.copy_from_slice(text.as_bytes());
}
