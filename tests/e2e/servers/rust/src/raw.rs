// SPDX-License-Identifier: Apache-2.0

//! Messages of gRPC as they are, and the little JSON that tests put into them.

use bytes::{Buf, BufMut, Bytes};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::Status;

#[derive(Clone, Copy)]
pub struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// What follows `"name":` in an object of JSON.
fn behind<'a>(text: &'a str, name: &str) -> &'a str {
    let key = format!("\"{name}\":");
    let at = text.find(&key).unwrap_or_else(|| panic!("no {name} in {text}"));
    text[at + key.len()..].trim_start()
}

/// A member that is a natural number.
pub fn number(text: &str, name: &str) -> usize {
    let digits: String = behind(text, name).chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

/// A member that is a string without escapes.
#[allow(dead_code)] // the server needs none
pub fn string<'a>(text: &'a str, name: &str) -> &'a str {
    behind(text, name).split('"').nth(1).expect("a string")
}

/// A member that is an object without objects.
#[allow(dead_code)]
pub fn object<'a>(text: &'a str, name: &str) -> &'a str {
    let rest = behind(text, name);
    &rest[..=rest.find('}').expect("an object")]
}
