//! What an administrator does in Kafka besides making topics: says who may do what, and sets passwords. Both may be done again.
//!
//! The client has no Rust for that. It has C, which is called here: a request goes into a queue of its own, and its answer comes out of
//! another one.

#![expect(unsafe_code, reason = "the client has no Rust for these requests")]

use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr;
use std::time::Duration;

use rdkafka::admin::AdminClient;
use rdkafka::bindings as native;
use rdkafka::client::DefaultClientContext;
use rdkafka::error::KafkaError;
use thiserror::Error;

use super::KafkaConfig;
use super::access::{Operation, Resource, Right};

/// How long the brokers have for an answer.
const WITHIN: Duration = Duration::from_secs(10);
/// How much longer the client has to say that there was none.
const SLACK: Duration = Duration::from_secs(5);
/// How often a password is hashed; the more often, the longer each guess takes whoever has stolen the hashes, and each login.
const ITERATIONS: i32 = 8_192;

/// Why something was not done. Each text says what to do.
#[derive(Debug, Error)]
pub enum AdministrationError {
    /// The client can't be made.
    #[error("Kafka's client can't be made: {0}")]
    Client(#[from] KafkaError),
    /// The brokers did not answer, or would not do any of it.
    #[error(
        "Kafka does not do it: {0}; check that it runs, that KAFKA_BROKERS names it, and that this user may change rights and users there"
    )]
    NotDone(String),
    /// The brokers would not do a part of it.
    #[error(
        "Kafka refuses that {what}: {reason}; check that it has an authorizer, and that this user may change it"
    )]
    Refused {
        /// What was asked for.
        what: String,
        /// The broker's reason.
        reason: String,
    },
}

/// Allows all this, for good. What is allowed already stays so.
///
/// # Errors
/// [`AdministrationError`] where the brokers don't. A part of it may be allowed then.
pub async fn allow(kafka: &KafkaConfig, rights: &[Right]) -> Result<(), AdministrationError> {
    let (kafka, rights) = (kafka.clone(), rights.to_vec());
    on_a_thread(move || {
        let bindings = rights.iter().map(binding).collect::<Result<Vec<_>, _>>()?;
        let mut pointers: Vec<_> = bindings.iter().map(|binding| binding.pointer).collect();
        let send = |request: Request| {
            // SAFETY: client, options and queue live as long as the request; the bindings, which the client copies, longer.
            unsafe {
                native::rd_kafka_CreateAcls(
                    request.client,
                    pointers.as_mut_ptr(),
                    pointers.len(),
                    request.options,
                    request.queue,
                );
            }
        };
        let refusals =
            ask(&kafka, native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_CREATEACLS, send, refused_rights)?;
        let answers = refusals.into_iter().zip(&rights);
        done(answers.map(|(reason, right)| Some((right.to_string(), reason?))).collect(), rights.len())
    })
    .await
}

/// Makes users that log in by SCRAM-SHA-512, each with that password; one that is there gets a new password.
///
/// # Errors
/// [`AdministrationError`] where the brokers don't. Some may have been made then.
pub async fn set_passwords(
    kafka: &KafkaConfig,
    users: &[(String, String)],
) -> Result<(), AdministrationError> {
    let (kafka, users) = (kafka.clone(), users.to_vec());
    on_a_thread(move || {
        let changes = users.iter().map(password_change).collect::<Result<Vec<_>, _>>()?;
        let mut pointers: Vec<_> = changes.iter().map(|change| change.pointer).collect();
        let send = |request: Request| {
            // SAFETY: client, options and queue live as long as the request; the changes, which the client copies, longer.
            unsafe {
                native::rd_kafka_AlterUserScramCredentials(
                    request.client,
                    pointers.as_mut_ptr(),
                    pointers.len(),
                    request.options,
                    request.queue,
                );
            }
        };
        let kind = native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_ALTERUSERSCRAMCREDENTIALS;
        done(ask(&kafka, kind, send, refused_passwords)?, users.len())
    })
    .await
}

/// What the answers come to: to each what was refused, and why; none where it was done. What has no answer was not done.
fn done(answers: Vec<Option<(String, String)>>, asked: usize) -> Result<(), AdministrationError> {
    let answered = answers.len();
    match answers.into_iter().flatten().next() {
        Some((what, reason)) => Err(AdministrationError::Refused { what, reason }),
        None if answered < asked => {
            Err(AdministrationError::NotDone(format!("it has answered {answered} of {asked} questions")))
        }
        None => Ok(()),
    }
}

async fn on_a_thread(
    work: impl FnOnce() -> Result<(), AdministrationError> + Send + 'static,
) -> Result<(), AdministrationError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(AdministrationError::Client(KafkaError::Canceled)))
}

/// What a request is sent with.
struct Request {
    client: *mut native::rd_kafka_t,
    options: *const native::rd_kafka_AdminOptions_t,
    queue: *mut native::rd_kafka_queue_t,
}

/// Has a request of that kind sent, and answers what `read` makes of its answer.
fn ask<T>(
    kafka: &KafkaConfig,
    kind: native::rd_kafka_admin_op_t,
    send: impl FnOnce(Request),
    read: impl FnOnce(*mut native::rd_kafka_event_t) -> T,
) -> Result<T, AdministrationError> {
    // The order of these is the reverse of that of their dropping: the client goes last.
    let admin: AdminClient<DefaultClientContext> = kafka.client().create()?;
    let client = admin.inner().native_ptr();
    // SAFETY: the client is alive, and each is destroyed by the function for its kind.
    let queue = unsafe { Owned::of(native::rd_kafka_queue_new(client), native::rd_kafka_queue_destroy) }?;
    // SAFETY: as above.
    let options = unsafe {
        Owned::of(native::rd_kafka_AdminOptions_new(client, kind), native::rd_kafka_AdminOptions_destroy)
    }?;
    // SAFETY: the options are alive. The time is one that they take, so there is no error to be written anywhere.
    unsafe {
        native::rd_kafka_AdminOptions_set_request_timeout(
            options.pointer,
            millis(WITHIN),
            ptr::null_mut(),
            0,
        );
    }
    send(Request { client, options: options.pointer, queue: queue.pointer });
    // SAFETY: the queue is alive, and what comes out of it is ours to destroy.
    let event = unsafe {
        let event = native::rd_kafka_queue_poll(queue.pointer, millis(WITHIN + SLACK));
        Owned::of(event, native::rd_kafka_event_destroy)
    }?;
    // SAFETY: the event is alive, and so is its text.
    let failed = unsafe {
        let is_well = native::rd_kafka_event_error(event.pointer)
            == native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
        (!is_well).then(|| text(native::rd_kafka_event_error_string(event.pointer)))
    };
    match failed {
        Some(reason) => Err(AdministrationError::NotDone(reason)),
        None => Ok(read(event.pointer)),
    }
}

/// Why each right was refused, in the order in which they were asked for; none where it was not.
fn refused_rights(event: *mut native::rd_kafka_event_t) -> Vec<Option<String>> {
    // SAFETY: the event is alive, and so is all that it shows. One of another kind shows nothing.
    unsafe {
        let result = native::rd_kafka_event_CreateAcls_result(event);
        if result.is_null() {
            return Vec::new();
        }
        let mut count = 0;
        let answers = native::rd_kafka_CreateAcls_result_acls(result, &raw mut count);
        let refusal = |index| refusal(native::rd_kafka_acl_result_error(*answers.add(index)));
        (0..count).map(refusal).collect()
    }
}

/// Of each user, that a password was refused, and why; none where it was not.
fn refused_passwords(event: *mut native::rd_kafka_event_t) -> Vec<Option<(String, String)>> {
    // SAFETY: the event is alive, and so is all that it shows. One of another kind shows nothing.
    unsafe {
        let result = native::rd_kafka_event_AlterUserScramCredentials_result(event);
        if result.is_null() {
            return Vec::new();
        }
        let mut count = 0;
        let answers = native::rd_kafka_AlterUserScramCredentials_result_responses(result, &raw mut count);
        let refused = |index| {
            let answer = *answers.add(index);
            let reason = refusal(native::rd_kafka_AlterUserScramCredentials_result_response_error(answer))?;
            let user = text(native::rd_kafka_AlterUserScramCredentials_result_response_user(answer));
            Some((format!("{user} gets a password"), reason))
        };
        (0..count).map(refused).collect()
    }
}

/// What an error says, if it is one.
///
/// # Safety
/// The error is alive, or null.
unsafe fn refusal(error: *const native::rd_kafka_error_t) -> Option<String> {
    // SAFETY: as the caller has promised; null has no code.
    unsafe {
        let is_well = error.is_null()
            || native::rd_kafka_error_code(error) == native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
        (!is_well).then(|| text(native::rd_kafka_error_string(error)))
    }
}

/// A text of the client's.
///
/// # Safety
/// It is alive and ends with NUL, or null.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: as the caller has promised.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// A right as the client takes it.
fn binding(right: &Right) -> Result<Owned<native::rd_kafka_AclBinding_t>, AdministrationError> {
    use native::rd_kafka_AclOperation_t as Op;
    use native::rd_kafka_ResourcePatternType_t as Pattern;
    use native::rd_kafka_ResourceType_t as Kind;
    let (kind, pattern, name) = match &right.resource {
        Resource::Topic(name) => {
            (Kind::RD_KAFKA_RESOURCE_TOPIC, Pattern::RD_KAFKA_RESOURCE_PATTERN_LITERAL, name)
        }
        Resource::Group(name) => {
            (Kind::RD_KAFKA_RESOURCE_GROUP, Pattern::RD_KAFKA_RESOURCE_PATTERN_LITERAL, name)
        }
        Resource::GroupsThatBeginWith(prefix) => {
            (Kind::RD_KAFKA_RESOURCE_GROUP, Pattern::RD_KAFKA_RESOURCE_PATTERN_PREFIXED, prefix)
        }
    };
    let operation = match right.operation {
        Operation::Read => Op::RD_KAFKA_ACL_OPERATION_READ,
        Operation::Write => Op::RD_KAFKA_ACL_OPERATION_WRITE,
        Operation::Create => Op::RD_KAFKA_ACL_OPERATION_CREATE,
        Operation::Delete => Op::RD_KAFKA_ACL_OPERATION_DELETE,
        Operation::Describe => Op::RD_KAFKA_ACL_OPERATION_DESCRIBE,
    };
    let (name, principal) = (c_text(name)?, c_text(&format!("User:{}", right.user))?);
    let permission = native::rd_kafka_AclPermissionType_t::RD_KAFKA_ACL_PERMISSION_TYPE_ALLOW;
    // SAFETY: the texts end with NUL and live longer than the call, which copies them; it writes nowhere where there is no room.
    unsafe {
        let binding = native::rd_kafka_AclBinding_new(
            kind,
            name.as_ptr(),
            pattern,
            principal.as_ptr(),
            // From wherever.
            c"*".as_ptr(),
            operation,
            permission,
            ptr::null_mut(),
            0,
        );
        Owned::of(binding, native::rd_kafka_AclBinding_destroy)
    }
}

/// A user's password as the client takes it, with a salt that it draws.
fn password_change(
    (user, password): &(String, String),
) -> Result<Owned<native::rd_kafka_UserScramCredentialAlteration_t>, AdministrationError> {
    let user = c_text(user)?;
    let mechanism = native::rd_kafka_ScramMechanism_t::RD_KAFKA_SCRAM_MECHANISM_SHA_512;
    // SAFETY: the name ends with NUL, the password has that length, and both live longer than the call, which copies them.
    unsafe {
        let change = native::rd_kafka_UserScramCredentialUpsertion_new(
            user.as_ptr(),
            mechanism,
            ITERATIONS,
            password.as_ptr(),
            password.len(),
            ptr::null(),
            0,
        );
        Owned::of(change, native::rd_kafka_UserScramCredentialAlteration_destroy)
    }
}

fn c_text(text: &str) -> Result<CString, AdministrationError> {
    CString::new(text).map_err(|error| AdministrationError::Client(error.into()))
}

fn millis(time: Duration) -> c_int {
    c_int::try_from(time.as_millis()).unwrap_or(c_int::MAX)
}

/// Something of the client's that is ours to destroy.
struct Owned<T> {
    pointer: *mut T,
    destroy: unsafe extern "C" fn(*mut T),
}

impl<T> Owned<T> {
    /// Takes over what the client has made, if it has.
    ///
    /// # Safety
    /// Nobody else destroys it, and `destroy` is the function for it.
    unsafe fn of(
        pointer: *mut T,
        destroy: unsafe extern "C" fn(*mut T),
    ) -> Result<Owned<T>, AdministrationError> {
        if pointer.is_null() {
            return Err(AdministrationError::NotDone("the client has no answer".to_owned()));
        }
        Ok(Owned { pointer, destroy })
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: it is alive, and this is the function for it.
        unsafe { (self.destroy)(self.pointer) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_or_has_no_answer_is_not_done() {
        let refused = || Some(("relay gets a password".to_owned(), "no".to_owned()));
        assert!(done(vec![None, None], 2).is_ok());
        let error = done(vec![None, refused()], 2).unwrap_err().to_string();
        assert!(error.contains("refuses that relay gets a password: no"), "{error}");
        for answers in [vec![], vec![None]] {
            let error = done(answers, 2).unwrap_err().to_string();
            assert!(error.contains("of 2 questions; check that it runs"), "{error}");
        }
    }
}
