//! A user of the system bus for tests. It writes its unique name, and then runs each line of its standard input and
//! answers with one line of JSON; `pag-buscaller WORD...` runs one line and ends.
//!
//! `call PATH INTERFACE MEMBER ARG...` (an argument is a string, `u:N` a number, `v:TEXT` a variant; `-` stands for
//! no interface), `ask ...` the same with interactive authorization, `begin ...` the same without waiting, `answer`
//! waits for that answer, `own NAME`, `match RULE` (words joined), `signals MILLIS` gives the signals that have come
//! and come until then, `flood CONNECTIONS PIPELINE MILLIS PATH INTERFACE MEMBER ARG...` calls as fast as it can and
//! counts the answers; `spray MILLIS PATH ...` calls as fast as it can and wants no answer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout)]

use std::collections::{BTreeMap, HashMap};
use std::future::{Future, poll_fn};
use std::io::{BufRead, Write};
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_core::Stream;
use serde_json::{Value, json};
use zbus::message::{Flags, Message, Type};
use zbus::names::BusName;
use zbus::wire::StructureBuilder;
use zbus::{Connection, MessageStream, ObjectPath, OwnedVariant, Variant};
use zruntime::SharedRuntime;

const SERVICE: &str = "org.pam_pag.Pag1";
/// Longest wait for one answer.
const ANSWER: Duration = Duration::from_secs(60);

struct User {
    runtime: SharedRuntime,
    connection: Connection,
    messages: MessageStream,
    signals: Vec<Value>,
    answers: HashMap<u32, Value>,
    begun: Option<u32>,
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    zbus::block_on(async {
        let runtime = SharedRuntime::current().unwrap();
        let connection = zbus::connection::Builder::system().build().await.unwrap();
        let messages = MessageStream::from(&connection);
        let mut user =
            User { runtime, connection, messages, signals: Vec::new(), answers: HashMap::new(), begun: None };
        if !words.is_empty() {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            println!("{}", user.obey(&words).await);
            return;
        }
        println!("{}", json!({ "name": user.connection.unique_name().unwrap().to_string() }));
        std::io::stdout().flush().unwrap();
        for line in std::io::stdin().lock().lines() {
            let line = line.unwrap();
            // `_` is an empty word.
            let words: Vec<&str> = line.split_whitespace().map(|word| if word == "_" { "" } else { word }).collect();
            println!("{}", user.obey(&words).await);
            std::io::stdout().flush().unwrap();
        }
    });
}

impl User {
    async fn obey(&mut self, words: &[&str]) -> Value {
        match words {
            ["call", call @ ..] => {
                let serial = self.send(&message_to(SERVICE, call, Flags::empty())).await;
                self.answer(serial).await
            }
            ["ask", call @ ..] => {
                let serial = self.send(&message_to(SERVICE, call, Flags::ALLOW_INTERACTIVE_AUTH)).await;
                self.answer(serial).await
            }
            ["begin", call @ ..] => {
                self.begun = Some(self.send(&message_to(SERVICE, call, Flags::empty())).await);
                json!({ "begun": true })
            }
            ["answer"] => {
                let serial = self.begun.take().expect("something was begun");
                self.answer(serial).await
            }
            ["own", name] => {
                let call = ["/org/freedesktop/DBus", "org.freedesktop.DBus", "RequestName", name, "u:4"];
                let serial = self.send(&message_to("org.freedesktop.DBus", &call, Flags::empty())).await;
                self.answer(serial).await
            }
            ["match", rule @ ..] => {
                let call = ["/org/freedesktop/DBus", "org.freedesktop.DBus", "AddMatch", &rule.join(" ")];
                let serial = self.send(&message_to("org.freedesktop.DBus", &call, Flags::empty())).await;
                self.answer(serial).await
            }
            ["signals", millis] => {
                let end = Instant::now() + Duration::from_millis(millis.parse().unwrap());
                while self.receive(end).await {}
                json!(std::mem::take(&mut self.signals))
            }
            ["flood", connections, pipeline, millis, call @ ..] => {
                let number = |word: &str| word.parse::<u64>().unwrap();
                flood(&self.runtime, number(connections), number(pipeline), number(millis), call).await
            }
            ["spray", millis, call @ ..] => {
                let end = Instant::now() + Duration::from_millis(millis.parse().unwrap());
                let mut count = 0;
                while Instant::now() < end {
                    self.send(&message_to(SERVICE, call, Flags::NO_REPLY_EXPECTED)).await;
                    count += 1;
                }
                json!({ "sent": count })
            }
            other => panic!("no such words: {other:?}"),
        }
    }

    async fn send(&self, message: &Message) -> u32 {
        self.connection.send(message).await.unwrap();
        message.primary_header().serial_num().get()
    }

    /// Takes in one message; false when none comes until `end`.
    async fn receive(&mut self, end: Instant) -> bool {
        let next = poll_fn(|cx| Pin::new(&mut self.messages).poll_next(cx));
        let Ok(message) = self.runtime.timeout_at(end, next).await else { return false };
        let message = message.expect("the bus is there").unwrap();
        let header = message.header();
        let text = |field: Option<String>| field.unwrap_or_default();
        match message.message_type() {
            Type::Signal => self.signals.push(json!({
                "path": text(header.path().map(ToString::to_string)),
                "member": text(header.member().map(ToString::to_string)),
                "sender": text(header.sender().map(ToString::to_string)),
                "body": body(&message),
            })),
            Type::MethodReturn => {
                drop(self.answers.insert(header.reply_serial().unwrap().get(), json!({ "ok": body(&message) })))
            }
            Type::Error => drop(self.answers.insert(header.reply_serial().unwrap().get(), {
                json!({ "error": text(header.error_name().map(ToString::to_string)), "text": body(&message) })
            })),
            Type::MethodCall => {}
        }
        true
    }

    async fn answer(&mut self, serial: u32) -> Value {
        let end = Instant::now() + ANSWER;
        loop {
            if let Some(answer) = self.answers.remove(&serial) {
                return answer;
            }
            assert!(self.receive(end).await, "no answer within {ANSWER:?}");
        }
    }
}

fn message_to(destination: &str, call: &[&str], flags: Flags) -> Message {
    let [path, interface, member, arguments @ ..] = call else { panic!("a call has three words: {call:?}") };
    let mut builder = Message::method_call(path.to_string(), member.to_string())
        .destination(BusName::try_from(destination.to_owned()).unwrap())
        .with_flags(flags);
    if *interface != "-" {
        builder = builder.interface(interface.to_string());
    }
    if arguments.is_empty() {
        return builder.build(&()).unwrap();
    }
    let mut body = StructureBuilder::new();
    for argument in arguments {
        let value = match argument.split_once(':') {
            Some(("u", number)) => Variant::from(number.parse::<u32>().unwrap()),
            Some(("v", text)) => Variant::Variant(Box::new(Variant::from(text.to_owned()))),
            _ => Variant::from((*argument).to_owned()),
        };
        body = body.append_field(value);
    }
    builder.build(&body.build().unwrap()).unwrap()
}

/// The body of a message, of the types that the interface has.
fn body(message: &Message) -> Value {
    type Properties<'a> = HashMap<String, OwnedVariant>;
    type Objects<'a> = HashMap<ObjectPath<'a>, HashMap<String, Properties<'a>>>;
    let body = message.body();
    let signature = body.signature().to_string_no_parens();
    match &signature[..] {
        "" => Value::Null,
        "s" => json!(body.deserialize::<&str>().unwrap()),
        "o" => json!(body.deserialize::<ObjectPath<'_>>().unwrap().as_str()),
        "u" => json!(body.deserialize::<u32>().unwrap()),
        "v" => value(&body.deserialize::<Variant<'_>>().unwrap()),
        "a{sv}" => properties(&body.deserialize().unwrap()),
        "a(susssbo)" => {
            type Line<'a> = (String, u32, String, String, String, bool, ObjectPath<'a>);
            let lines: Vec<Line<'_>> = body.deserialize().unwrap();
            let line = |(id, uid, kind, who, follows, chosen, path): &Line<'_>| {
                json!([id, uid, kind, who, follows, chosen, path.as_str()])
            };
            lines.iter().map(line).collect()
        }
        "a{oa{sa{sv}}}" => {
            let objects: Objects<'_> = body.deserialize().unwrap();
            let object =
                |(path, all): (&ObjectPath<'_>, &HashMap<String, Properties<'_>>)| (path.to_string(), interfaces(all));
            Value::Object(objects.iter().map(object).collect())
        }
        "oa{sa{sv}}" => {
            let (path, all): (ObjectPath<'_>, HashMap<String, Properties<'_>>) = body.deserialize().unwrap();
            json!([path.as_str(), interfaces(&all)])
        }
        "ts" => json!(body.deserialize::<(u64, String)>().unwrap()),
        "oas" => {
            let (path, names): (ObjectPath<'_>, Vec<String>) = body.deserialize().unwrap();
            json!([path.as_str(), names])
        }
        "sa{sv}as" => {
            let (name, changed, gone): (String, Properties<'_>, Vec<String>) = body.deserialize().unwrap();
            json!([name, properties(&changed), gone])
        }
        "sss" => json!(body.deserialize::<(String, String, String)>().unwrap()),
        other => json!({ "signature": other }),
    }
}

fn interfaces(all: &HashMap<String, HashMap<String, OwnedVariant>>) -> Value {
    Value::Object(all.iter().map(|(name, all)| (name.clone(), properties(all))).collect())
}

fn properties(all: &HashMap<String, OwnedVariant>) -> Value {
    Value::Object(all.iter().map(|(name, one)| (name.clone(), value(one))).collect())
}

fn value(variant: &Variant<'_>) -> Value {
    match variant {
        Variant::Bool(it) => json!(it),
        Variant::I32(it) => json!(it),
        Variant::U32(it) => json!(it),
        Variant::U64(it) => json!(it),
        Variant::Str(it) => json!(it.as_str()),
        Variant::ObjectPath(it) => json!(it.as_str()),
        Variant::Array(it) => it.iter().map(value).collect(),
        Variant::Structure(it) => it.fields().iter().map(value).collect(),
        Variant::Variant(it) => value(it),
        other => json!({ "type": other.value_signature().to_string() }),
    }
}

/// The calls of one connection, and how often each answer came.
type Flood<'a> = Pin<Box<dyn Future<Output = BTreeMap<String, u64>> + 'a>>;

/// Keeps `pipeline` calls under way on each of so many connections until the time is up; how often each answer came.
async fn flood(runtime: &SharedRuntime, connections: u64, pipeline: u64, millis: u64, call: &[&str]) -> Value {
    let end = Instant::now() + Duration::from_millis(millis);
    let mut floods: Vec<Flood<'_>> = Vec::new();
    for _ in 0..connections {
        floods.push(Box::pin(async move {
            let connection = zbus::connection::Builder::system().build().await.unwrap();
            let mut messages = MessageStream::from(&connection);
            let mut counts = BTreeMap::new();
            let mut under_way = 0;
            loop {
                while under_way < pipeline && Instant::now() < end {
                    connection.send(&message_to(SERVICE, call, Flags::empty())).await.unwrap();
                    under_way += 1;
                }
                if under_way == 0 {
                    return counts;
                }
                let message = poll_fn(|cx| Pin::new(&mut messages).poll_next(cx)).await.unwrap().unwrap();
                let answer = match message.message_type() {
                    Type::MethodReturn => "ok".to_owned(),
                    Type::Error => message.header().error_name().unwrap().to_string(),
                    _ => continue,
                };
                under_way -= 1;
                *counts.entry(answer).or_insert(0) += 1;
            }
        }));
    }
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let all = poll_fn(|cx| {
        floods.retain_mut(|flood| match flood.as_mut().poll(cx) {
            Poll::Ready(some) => {
                some.into_iter().for_each(|(answer, count)| *counts.entry(answer).or_insert(0) += count);
                false
            }
            Poll::Pending => true,
        });
        if floods.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    });
    runtime.timeout(ANSWER + Duration::from_millis(millis), all).await.expect("the flood is answered");
    json!(counts)
}
