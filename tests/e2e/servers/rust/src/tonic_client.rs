// SPDX-License-Identifier: Apache-2.0

//! Makes the calls of a plan by tonic. Usage and files as of servers/go/grpcclient: tonic-client PORT PLAN CALLS-AT-ONCE
//! LOG GO-FILE.

use std::fs::{self, File};
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::client::HttpConnector;
use hyper::http::uri::PathAndQuery;
use hyper::{Client, Uri};
use tokio::time::{sleep, timeout};
use tonic::body::BoxBody;
use tonic::client::Grpc;
use tonic::{Code, Request, Status};

mod raw;
use raw::Raw;

type Channel = Client<HttpConnector, BoxBody>;

const GIVEN_UP_AFTER: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(60);

fn request<T>(said: T, planned: &str) -> Request<T> {
    let mut request = Request::new(said);
    let deadline = raw::string(planned, "ended") == "deadline";
    request.set_timeout(if deadline { GIVEN_UP_AFTER } else { LONGEST });
    request
}

/// How many answers a call had.
async fn exchange(grpc: &mut Grpc<Channel>, planned: &str) -> Result<usize, Status> {
    let path = format!("/shop.v1.Orders/{}", raw::string(planned, "id"));
    let path = PathAndQuery::try_from(path).expect("a path");
    let mut messages = vec![Bytes::copy_from_slice(raw::object(planned, "wish").as_bytes())];
    for number in 1..raw::number(planned, "messages") {
        messages.push(Bytes::from(vec![b'x'; 100 * (number - 1)]));
    }
    let first = messages[0].clone();
    let all = tokio_stream::iter(messages);
    grpc.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    let answers = match raw::string(planned, "kind") {
        "unary" => return grpc.unary(request(first, planned), path, Raw).await.map(|_| 1),
        "up" => return grpc.client_streaming(request(all, planned), path, Raw).await.map(|_| 1),
        "down" => grpc.server_streaming(request(first, planned), path, Raw).await,
        _ => grpc.streaming(request(all, planned), path, Raw).await,
    };
    let mut answers = answers?.into_inner();
    let mut count = 0;
    while let Some(_message) = answers.message().await? {
        count += 1;
    }
    Ok(count)
}

/// The line of the plan, with how the call ended.
async fn perform(grpc: &mut Grpc<Channel>, planned: &str) -> String {
    let ended = raw::string(planned, "ended");
    let most = if ended == "code" { LONGEST } else { GIVEN_UP_AFTER };
    let (code, answers) = match timeout(most, exchange(grpc, planned)).await {
        Ok(Ok(answers)) => (Code::Ok as i32, answers),
        Ok(Err(status)) => (status.code() as i32, 0),
        Err(_) => (if ended == "deadline" { Code::DeadlineExceeded } else { Code::Cancelled } as i32, 0),
    };
    assert!(ended == "code" || code != 0, "it was not given up: {planned}");
    let said = planned.trim_end().strip_suffix('}').expect("an object");
    format!("{said}, \"code\": {code}, \"answers\": {answers}}}\n")
}

async fn wait_for(file: &str, word: &str) {
    let begun = Instant::now();
    while fs::read_to_string(file).unwrap_or_default() != word {
        assert!(begun.elapsed() < Duration::from_secs(120), "nobody said {word}");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let words: Vec<String> = std::env::args().collect();
    let (port, plan, log, go) = (&words[1], &words[2], &words[4], &words[5]);
    let at_once: usize = words[3].parse().expect("calls at once");
    fs::write(go, "ready").expect("go file");
    wait_for(go, "go").await;
    let origin: Uri = format!("http://127.0.0.1:{port}").parse().expect("an address");
    let channel: Channel = Client::builder().http2_only(true).build_http();
    let lines: Vec<String> = fs::read_to_string(plan).expect("plan").lines().map(str::to_owned).collect();
    let left = Arc::new(Mutex::new(lines.into_iter()));
    let file = Arc::new(Mutex::new(File::create(log).expect("log")));
    let mut workers = Vec::new();
    for _ in 0..at_once {
        let (left, file) = (Arc::clone(&left), Arc::clone(&file));
        let mut grpc = Grpc::with_origin(channel.clone(), origin.clone());
        workers.push(tokio::spawn(async move {
            loop {
                let next = left.lock().unwrap().next();
                let planned = match next {
                    Some(line) => line,
                    None => return,
                };
                let line = perform(&mut grpc, &planned).await;
                file.lock().unwrap().write_all(line.as_bytes()).expect("log");
            }
        }));
    }
    for worker in workers {
        worker.await.expect("a worker");
    }
    wait_for(go, "done").await;
}
