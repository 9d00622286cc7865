//! Whether topics are still those that a pipeline began with.
//!
//! A topic that was deleted takes no records, and the client only says so when each record's time is over. One of the same name that is made anew takes
//! them as if nothing had happened, though what was written before is gone. Ids of topics tell the two apart. The binding has no
//! call for them, so the client is asked directly.
//!
//! Invariant: the id of a topic that is written to is remembered for one life of the pipeline; the next start takes the topics as it finds them. That of a topic
//! that is read is kept with the offsets, which mean nothing in another.

use super::client::{Context, QUESTION_TIMEOUT};
use crate::ConnectError;
use rdkafka::bindings as native;
use rdkafka::client::Client;
use std::collections::HashMap;
use std::ffi::{CStr, CString};

/// So many answers in a row are believed while nothing else is wrong: a broker that has just started may not know every topic yet.
pub const LOOKS: u32 = 3;

/// What a broker says of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It is there, with this id; 0 where brokers give none (before Kafka 2.8).
    There(u128),
    /// There is none of this name.
    Missing,
}

/// What has become of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// There is none of this name any more.
    Deleted,
    /// There is another one of this name.
    MadeAnew,
}

/// The topics of one life.
#[derive(Debug)]
pub struct Topics {
    known: Vec<Known>,
}

#[derive(Debug)]
struct Known {
    name: String,
    id: Option<u128>,
    /// How many answers in a row said that it is gone.
    gone: u32,
}

impl Topics {
    /// Whose ids are those of the first answer.
    pub fn new(mut names: Vec<String>) -> Topics {
        names.sort();
        names.dedup();
        Topics { known: names.into_iter().map(|name| Known { name, id: None, gone: 0 }).collect() }
    }

    /// Their names.
    pub fn names(&self) -> Vec<String> {
        self.known.iter().map(|known| known.name.clone()).collect()
    }

    /// Takes an answer: the first topic that is gone, if that was said `believed` times in a row. What an answer leaves out is as it was.
    pub fn take(&mut self, answer: &HashMap<String, Found>, believed: u32) -> Option<(String, Gone)> {
        let mut first = None;
        for known in &mut self.known {
            let gone = match (answer.get(&known.name), known.id) {
                (None, _) => continue,
                (Some(Found::Missing), _) => Some(Gone::Deleted),
                (Some(Found::There(id)), Some(before)) if *id != before => Some(Gone::MadeAnew),
                (Some(Found::There(id)), _) => {
                    known.id = Some(*id);
                    None
                }
            };
            known.gone = gone.map_or(0, |_| known.gone + 1);
            first = first.or(gone.filter(|_| known.gone >= believed).map(|gone| (known.name.clone(), gone)));
        }
        first
    }
}

/// The error for a topic that is gone.
pub fn error(topic: &str, gone: Gone, servers: &str) -> ConnectError {
    match gone {
        Gone::Deleted => ConnectError::user(
            format!("topic `{topic}` on {servers} was deleted while the pipeline wrote to it"),
            "what was in it is gone. Create it again and start again: the pipeline goes on after its last checkpoint; with `--restart` it writes everything anew",
        ),
        Gone::MadeAnew => ConnectError::user(
            format!("topic `{topic}` on {servers} was deleted and made anew while the pipeline wrote to it"),
            "what was in it before is gone. Start again: the pipeline goes on after its last checkpoint; with `--restart` it writes everything anew",
        ),
    }
}

/// The id of a topic; `None`: no broker says. Blocks.
pub fn id_of(client: &Client<Context>, topic: &str) -> Option<u128> {
    let name = [topic.to_string()];
    let found = (0..LOOKS).find_map(|_| ask(client, &name).remove(topic));
    match found {
        Some(Found::There(id)) if id != 0 => Some(id),
        _ => None,
    }
}

/// What a broker says of these topics, by name; topics of which it does not know are left out, and all if it does not answer. Blocks.
pub fn ask(client: &Client<Context>, names: &[String]) -> HashMap<String, Found> {
    let names: Vec<CString> = names.iter().filter_map(|name| CString::new(name.as_str()).ok()).collect();
    let mut pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
    let millis = i32::try_from(QUESTION_TIMEOUT.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the client lives while it is borrowed. Each call gets pointers that the calls before it have made, which are freed once, when they
    // are no longer used; the names live until the end of this function, and are copied by the client.
    unsafe {
        let options = Owned(native::rd_kafka_AdminOptions_new(client.native_ptr(), DESCRIBE), native::rd_kafka_AdminOptions_destroy);
        native::rd_kafka_AdminOptions_set_request_timeout(options.0, millis, std::ptr::null_mut(), 0);
        let topics = native::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        let topics = Owned(topics, native::rd_kafka_TopicCollection_destroy);
        let queue = Owned(native::rd_kafka_queue_new(client.native_ptr()), native::rd_kafka_queue_destroy);
        native::rd_kafka_DescribeTopics(client.native_ptr(), topics.0, options.0, queue.0);
        // The client itself says when the time is over.
        let event = Owned(native::rd_kafka_queue_poll(queue.0, 2 * millis), native::rd_kafka_event_destroy);
        let result = native::rd_kafka_event_DescribeTopics_result(event.0);
        if result.is_null() {
            return HashMap::new();
        }
        let mut count = 0;
        let described = native::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        (0..count).filter_map(|number| read(*described.add(number))).collect()
    }
}

const DESCRIBE: native::rd_kafka_admin_op_t = native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;

/// # Safety
/// `topic` is a description of librdkafka's that lives, unchanged, until this returns.
unsafe fn read(topic: *const native::rd_kafka_TopicDescription_t) -> Option<(String, Found)> {
    use native::rd_kafka_resp_err_t::{RD_KAFKA_RESP_ERR_NO_ERROR, RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART};
    // SAFETY: the caller says that the description lives; its name ends with a zero byte, and its error and id live as long. An error may be null.
    let (name, code, id) = unsafe {
        let id = native::rd_kafka_TopicDescription_topic_id(topic);
        let halves = match id.is_null() {
            true => (0, 0),
            false => (native::rd_kafka_Uuid_most_significant_bits(id), native::rd_kafka_Uuid_least_significant_bits(id)),
        };
        let code = native::rd_kafka_error_code(native::rd_kafka_TopicDescription_error(topic));
        (CStr::from_ptr(native::rd_kafka_TopicDescription_name(topic)).to_string_lossy().into_owned(), code, halves)
    };
    match code {
        RD_KAFKA_RESP_ERR_NO_ERROR => Some((name, Found::There(u128::from(id.0.cast_unsigned()) << 64 | u128::from(id.1.cast_unsigned())))),
        RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART => Some((name, Found::Missing)),
        _ => None,
    }
}

/// Something of librdkafka's, and what frees it.
struct Owned<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: made by the call that belongs to this function, and freed here only.
            unsafe { self.1(self.0) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers one after the other, and the first that is believed, of three in a row.
    fn check(answers: &[Option<Found>], expected: Option<(usize, Gone)>) {
        let mut topics = Topics::new(vec!["a".into(), "b".into(), "a".into()]);
        assert_eq!(topics.names(), ["a", "b"]);
        let found = answers.iter().enumerate().find_map(|(number, answer)| {
            let mut said = HashMap::from([("a".to_string(), Found::There(7))]);
            answer.map(|answer| said.insert("b".into(), answer));
            topics.take(&said, 3).map(|(topic, gone)| {
                assert_eq!(topic, "b");
                (number, gone)
            })
        });
        assert_eq!(found, expected, "{answers:?}");
    }

    #[test]
    fn a_topic_is_gone_when_that_is_said_often_enough() {
        let (old, new, missing) = (Some(Found::There(1)), Some(Found::There(2)), Some(Found::Missing));
        check(&[old, old, old, old], None);
        check(&[old, missing, missing, missing], Some((3, Gone::Deleted)));
        check(&[old, missing, missing, old, missing, missing], None);
        check(&[old, missing, None, missing, missing], Some((4, Gone::Deleted)));
        check(&[old, missing, missing, new], Some((3, Gone::MadeAnew)));
        check(&[old, new, new, new], Some((3, Gone::MadeAnew)));
        check(&[missing, new, new, new], None);
        check(&[Some(Found::There(0)); 5], None);
    }

    #[test]
    fn a_client_without_brokers_has_no_answer() {
        use crate::kafka::client::Events;
        use rdkafka::ClientConfig;
        use rdkafka::producer::{BaseProducer, Producer};
        let mut settings = ClientConfig::new();
        settings.set("bootstrap.servers", "127.0.0.1:1");
        let producer: BaseProducer<Context> = settings.create_with_context(Context(Events::new("t", "s", "a"))).unwrap();
        assert_eq!(ask(producer.client(), &["a".into()]), HashMap::new());
    }
}
