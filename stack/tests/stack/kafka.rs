//! Kafka starts, stops, and recovers from what can happen to it.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::time::Duration;

use ordermill_stack::{Kafka, KafkaOptions, Private, Quiet, StackError, free_port};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::{SOON, is_running, open_to_others, open_up, scratch};

fn start(dir: &Path) -> Result<Kafka, StackError> {
    Kafka::start(dir, KafkaOptions::default(), &Quiet)
}

fn config(kafka: &Kafka) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.brokers());
    config
}

async fn create_topic(kafka: &Kafka, name: &str) {
    let admin: AdminClient<DefaultClientContext> = config(kafka).create().unwrap();
    let topic = NewTopic::new(name, 12, TopicReplication::Fixed(1));
    for result in admin.create_topics([&topic], &AdminOptions::new()).await.unwrap() {
        result.unwrap();
    }
}

async fn send(kafka: &Kafka, topic: &str, text: &str) {
    let producer: FutureProducer = config(kafka).create().unwrap();
    producer.send(FutureRecord::<(), _>::to(topic).partition(0).payload(text), SOON).await.unwrap();
}

fn first_message(kafka: &Kafka, topic: &str) -> String {
    let consumer: BaseConsumer = config(kafka).set("group.id", "test").create().unwrap();
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&partitions).unwrap();
    let message = consumer.poll(SOON).unwrap().unwrap();
    String::from_utf8(message.payload().unwrap().to_owned()).unwrap()
}

fn topics(kafka: &Kafka) -> Vec<String> {
    let admin: AdminClient<DefaultClientContext> = config(kafka).create().unwrap();
    let metadata = admin.inner().fetch_metadata(None, SOON).unwrap();
    metadata.topics().iter().map(|topic| topic.name().to_owned()).collect()
}

#[tokio::test]
async fn a_second_start_finds_the_messages_and_the_port_of_the_first() {
    let scratch = scratch();
    let first = start(scratch.path()).unwrap();
    create_topic(&first, "orders").await;
    send(&first, "orders", "kept").await;
    let port = first.port();
    first.stop();
    assert!(!first.is_alive());
    drop(first);

    let second = start(scratch.path()).unwrap();
    assert_eq!(second.port(), port);
    assert_eq!(first_message(&second, "orders"), "kept");
}

#[tokio::test]
async fn what_a_broker_keeps_is_its_owners_alone_also_where_an_earlier_version_left_it_open() {
    let scratch = scratch();
    let (home, claim) = (scratch.path().join("kafka"), scratch.path().join("kafka.run"));
    let open = || [&home, &claim].map(|path| open_to_others(path)).concat();
    let kafka = start(scratch.path()).unwrap();
    create_topic(&kafka, "orders").await;
    send(&kafka, "orders", "kept").await;
    assert!(home.join("kafka.log").exists() && home.join("data/orders-0").exists());
    assert_eq!(open(), "");
    kafka.stop();
    drop(kafka);

    for path in [&home, &claim] {
        open_up(path);
    }
    assert_ne!(open(), "", "the look for what is open sees something");
    let kafka = start(scratch.path()).unwrap();
    assert_eq!(first_message(&kafka, "orders"), "kept");
    assert_eq!(open(), "");
}

#[tokio::test]
async fn a_killed_broker_comes_back_with_its_messages_and_a_wiped_one_without() {
    let kafka = Private::kafka().unwrap();
    create_topic(&kafka, "orders").await;
    send(&kafka, "orders", "acknowledged").await;
    let (pid, port) = (kafka.pid().unwrap(), kafka.port());
    kafka.kill9();
    assert!(!is_running(pid));
    kafka.restart().unwrap();
    assert_eq!(kafka.port(), port);
    assert_eq!(first_message(&kafka, "orders"), "acknowledged");

    kafka.wipe_data().unwrap();
    assert!(!kafka.is_alive());
    kafka.restart().unwrap();
    assert_eq!(topics(&kafka), Vec::<String>::new());
}

#[test]
fn half_formatted_data_is_formatted_anew_and_topics_are_not_created_by_accident() {
    let scratch = scratch();
    std::fs::create_dir_all(scratch.path().join("kafka/data.unfinished/torn")).unwrap();
    let kafka = start(scratch.path()).unwrap();
    let consumer: BaseConsumer = config(&kafka).create().unwrap();
    let _ = consumer.fetch_metadata(Some("no-such-topic"), Duration::from_secs(5));
    assert_eq!(topics(&kafka), Vec::<String>::new());
}

#[test]
fn a_port_in_use_is_reported_before_anything_is_started() {
    let scratch = scratch();
    let port = free_port().unwrap();
    let _holder = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    let options = KafkaOptions { port: Some(port), ..KafkaOptions::default() };
    let error = Kafka::start(scratch.path(), options, &Quiet).unwrap_err();
    assert!(matches!(error, StackError::PortInUse { .. }), "{error}");
}

#[test]
fn data_that_the_broker_refuses_ends_in_one_line() {
    let scratch = scratch();
    start(scratch.path()).unwrap().stop();
    std::fs::remove_file(scratch.path().join("kafka/data/meta.properties")).unwrap();
    let error = start(scratch.path()).unwrap_err().to_string();
    assert!(error.contains("No readable meta.properties"), "{error}");
    assert_eq!(error.lines().count(), 1);
}

#[test]
fn a_setting_that_the_broker_refuses_ends_in_one_line() {
    let scratch = scratch();
    let settings = vec![("num.partitions".to_owned(), "many".to_owned())];
    let options = KafkaOptions { settings, ..KafkaOptions::default() };
    let error = Kafka::start(scratch.path(), options, &Quiet).unwrap_err().to_string();
    assert!(error.contains("num.partitions"), "{error}");
    assert_eq!(error.lines().count(), 1);
}
