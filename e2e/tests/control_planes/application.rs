//! Two applications behind the proxy, each of which answers with its port.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use weft_sandbox::Pod;
use weft_sandbox::testing::Failure;

/// Their ports.
pub(crate) const ONE: u16 = 18080;
pub(crate) const OTHER: u16 = 18081;

/// Serves in a pod for as long as the test runs.
pub(crate) async fn serve(pod: &Pod) -> Result<(), Failure> {
    for port in [ONE, OTHER] {
        let listener = pod.run(move || std::net::TcpListener::bind(("127.0.0.1", port))).await??;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, port));
            }
        });
    }
    Ok(())
}

/// Answers requests without a body, until the client has no more.
async fn answer(mut stream: TcpStream, port: u16) {
    let mut received = Vec::new();
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n{port}");
    loop {
        while !received.ends_with(b"\r\n\r\n") {
            match stream.read_buf(&mut received).await {
                Ok(1..) => {}
                _ => return,
            }
        }
        received.clear();
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}
