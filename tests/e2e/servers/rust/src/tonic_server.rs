// SPDX-License-Identifier: Apache-2.0

//! Answers any call by tonic; its first message says how, as of servers/go/grpc. Usage: tonic-server PORT; access log
//! in $ACCESS_LOG.

use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::future::Future;
use std::io::Write;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::service::{make_service_fn, service_fn};
use hyper::Server;
use tokio_stream::{Stream, StreamExt};
use tonic::server::{Grpc, StreamingService};
use tonic::{Code, Request, Response, Status, Streaming};

mod raw;

/// What is logged of a call when it is over, also if it was given up.
struct Line {
    log: Arc<File>,
    method: String,
    received: usize,
    received_bytes: usize,
    sent: usize,
    sent_bytes: usize,
    code: i32,
}

impl Drop for Line {
    fn drop(&mut self) {
        let line = format!(
            "{{\"id\": \"{}\", \"method\": \"{}\", \"received\": {}, \"received_bytes\": {}, \"sent\": {}, \
             \"sent_bytes\": {}, \"code\": {}}}\n",
            self.method.rsplit('/').next().unwrap_or(""),
            self.method,
            self.received,
            self.received_bytes,
            self.sent,
            self.sent_bytes,
            self.code,
        );
        self.log.as_ref().write_all(line.as_bytes()).expect("access log");
    }
}

type Answers = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

/// One call of any kind: once the client has sent its last message, what the first one wishes.
async fn answer(request: Request<Streaming<Bytes>>, mut line: Line) -> Result<Response<Answers>, Status> {
    let mut messages = request.into_inner();
    let mut wish = String::new();
    while let Some(message) = messages.message().await? {
        if line.received == 0 {
            wish = String::from_utf8_lossy(&message).into_owned();
        }
        line.received += 1;
        line.received_bytes += message.len();
    }
    tokio::time::sleep(Duration::from_millis(raw::number(&wish, "wait") as u64)).await;
    let (count, size) = (raw::number(&wish, "answers"), raw::number(&wish, "size"));
    let mut said: Vec<Result<Bytes, Status>> = vec![Ok(Bytes::from(vec![b'a'; size])); count];
    line.sent = count;
    line.sent_bytes = count * size;
    line.code = raw::number(&wish, "code") as i32;
    if line.code != 0 {
        let status = Status::new(Code::from_i32(line.code), format!("wished for {}", line.code));
        if count == 0 {
            return Err(status);
        }
        said.push(Err(status));
    }
    Ok(Response::new(Box::pin(tokio_stream::iter(said).map(move |each| {
        let _ = &line; // is written when the last one is gone
        each
    }))))
}

struct Call(Option<Line>);

impl StreamingService<Bytes> for Call {
    type Response = Bytes;
    type ResponseStream = Answers;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Answers>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        Box::pin(answer(request, self.0.take().expect("one call")))
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let port: u16 = std::env::args().nth(1).expect("port").parse().expect("port");
    let path = std::env::var("ACCESS_LOG").expect("ACCESS_LOG");
    let log = Arc::new(OpenOptions::new().append(true).create(true).open(path).expect("log"));
    let make = make_service_fn(move |_| {
        let log = Arc::clone(&log);
        async move {
            Ok::<_, Infallible>(service_fn(move |request: hyper::Request<hyper::Body>| {
                let line = Line {
                    log: Arc::clone(&log),
                    method: request.uri().path().to_owned(),
                    received: 0,
                    received_bytes: 0,
                    sent: 0,
                    sent_bytes: 0,
                    code: 0,
                };
                async move { Ok::<_, Infallible>(Grpc::new(raw::Raw).streaming(Call(Some(line)), request).await) }
            }))
        }
    });
    let server = Server::bind(&SocketAddr::from(([127, 0, 0, 1], port)));
    server.http2_only(true).tcp_nodelay(true).serve(make).await.expect("server");
}
