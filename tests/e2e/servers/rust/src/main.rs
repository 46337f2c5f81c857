// SPDX-License-Identifier: Apache-2.0

//! The test service on hyper, in HTTP/1 and HTTP/2. Usage: hyper-server PORT; access log in $ACCESS_LOG.

use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::{to_bytes, Bytes};
use hyper::server::conn::AddrStream;
use hyper::service::{make_service_fn, service_fn};
use hyper::{Body, Method, Request, Response, Server};

async fn pieces(count: usize) -> (usize, Body) {
    let all: Vec<String> = (0..count).map(|i| format!("piece {i}\n")).collect();
    let sent = all.iter().map(String::len).sum();
    let (mut sender, body) = Body::channel();
    tokio::spawn(async move {
        for piece in all {
            if sender.send_data(piece.into()).await.is_err() {
                return;
            }
        }
    });
    (sent, body)
}

/// The answer, and how many body bytes it has.
async fn answer(method: &Method, path: &str, body: Bytes) -> (Response<Body>, usize) {
    let mut segments = path.split('/').skip(1);
    let kind = segments.next().unwrap_or("");
    let mut response = Response::builder();
    let content: Bytes = match kind {
        "status" => {
            let code: u16 = segments.next().and_then(|s| s.parse().ok()).unwrap_or(400);
            response = response.status(code);
            if code == 204 || code == 304 { Bytes::new() } else { "status\n".into() }
        }
        "echo" => body,
        "upload" => format!("{}\n", body.len()).into(),
        "chunked" => {
            let (sent, stream) = pieces(5).await;
            return (Response::new(stream), sent);
        }
        "big" => vec![b'b'; 200_000].into(),
        "slow" => {
            tokio::time::sleep(Duration::from_millis(20)).await;
            "slow\n".into()
        }
        "close" => {
            response = response.header("connection", "close");
            "closing\n".into()
        }
        _ if method == Method::DELETE => {
            response = response.status(204);
            Bytes::new()
        }
        _ => format!("item {}\n", segments.last().unwrap_or("")).into(),
    };
    if method == Method::HEAD { // in HTTP/2 hyper would send what it is given
        response = response.header("content-length", content.len());
        return (response.body(Body::empty()).expect("valid parts"), 0);
    }
    let sent = content.len();
    (response.body(Body::from(content)).expect("valid parts"), sent)
}

async fn handle(request: Request<Body>, log: Arc<File>, peer: u16) -> Result<Response<Body>, hyper::Error> {
    let started = Instant::now();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let body = to_bytes(request.into_body()).await?;
    let received = body.len();
    let (response, sent) = answer(&method, &path, body).await;
    let line = format!(
        "{{\"id\": \"{}\", \"method\": \"{method}\", \"path\": \"{path}\", \"status\": {}, \
         \"request_bytes\": {received}, \"response_bytes\": {sent}, \"duration_us\": {}, \
         \"peer_port\": {peer}}}\n",
        path.rsplit('/').next().unwrap_or(""),
        response.status().as_u16(),
        started.elapsed().as_micros(),
    );
    log.as_ref().write_all(line.as_bytes()).expect("access log");
    Ok(response)
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let port: u16 = std::env::args().nth(1).expect("port").parse().expect("port");
    let path = std::env::var("ACCESS_LOG").expect("ACCESS_LOG");
    let log = Arc::new(OpenOptions::new().append(true).create(true).open(path).expect("log"));
    let make = make_service_fn(move |connection: &AddrStream| {
        let (log, peer) = (Arc::clone(&log), connection.remote_addr().port());
        async move {
            Ok::<_, Infallible>(service_fn(move |request| handle(request, Arc::clone(&log), peer)))
        }
    });
    let server = Server::bind(&SocketAddr::from(([127, 0, 0, 1], port)));
    server.tcp_nodelay(true).serve(make).await.expect("server");
}
