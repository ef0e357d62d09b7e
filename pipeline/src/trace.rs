//! W3C trace context: one trace from the HTTP request through log and Kafka to the last worker.

use std::fmt;
use std::str::FromStr;

/// A `traceparent` of version 00, as the log keeps it: 16 bytes of the trace's id, 8 of the span's, and the flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext([u8; TraceContext::BYTES]);

impl TraceContext {
    /// How many bytes the log keeps of one.
    pub(crate) const BYTES: usize = 25;

    /// A new trace, sampled.
    #[must_use]
    pub fn new_root() -> TraceContext {
        let mut bytes = [1; TraceContext::BYTES];
        bytes[..16].copy_from_slice(&rand::random_range(1..=u128::MAX).to_be_bytes());
        TraceContext(bytes).child()
    }

    /// A new span of the same trace.
    #[must_use]
    pub fn child(mut self) -> TraceContext {
        self.0[16..24].copy_from_slice(&rand::random_range(1..=u64::MAX).to_be_bytes());
        self
    }

    /// A new span of the trace that `header` names, or a new trace where it names none.
    #[must_use]
    pub fn child_of(header: Option<&str>) -> TraceContext {
        header.and_then(|header| header.parse().ok()).map_or_else(TraceContext::new_root, TraceContext::child)
    }

    /// As the log keeps it.
    #[must_use]
    pub(crate) fn to_bytes(self) -> [u8; TraceContext::BYTES] {
        self.0
    }

    /// What [`TraceContext::to_bytes`] has made; `None` where it has not.
    #[must_use]
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<TraceContext> {
        bytes.try_into().ok().map(TraceContext)
    }

    /// The trace's id as 32 hexadecimal digits, as logs show it.
    #[must_use]
    pub fn trace_id(self) -> String {
        hex::encode(&self.0[..16])
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [trace_id, span_id, flags] = [&self.0[..16], &self.0[16..24], &self.0[24..]].map(hex::encode);
        write!(f, "00-{trace_id}-{span_id}-{flags}")
    }
}

/// The text is not a trace context that this version understands.
#[derive(Debug, PartialEq, Eq)]
pub struct NotATraceContext;

impl FromStr for TraceContext {
    type Err = NotATraceContext;

    fn from_str(text: &str) -> Result<TraceContext, NotATraceContext> {
        let bytes = hex::decode(text.replace('-', "")).map_err(|_| NotATraceContext)?;
        let context = bytes.get(1..).and_then(TraceContext::from_bytes).ok_or(NotATraceContext)?;
        // Other versions, capitals and hyphens at other places are not those of the format.
        let is_valid =
            context.0[..16] != [0; 16] && context.0[16..24] != [0; 8] && context.to_string() == text;
        is_valid.then_some(context).ok_or(NotATraceContext)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_keeps_the_trace_and_has_a_span_of_its_own() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let child = TraceContext::child_of(Some(parent));
        assert_eq!(child.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(!child.to_string().contains("00f067aa0ba902b7"));
        assert_eq!(child.to_string().parse(), Ok(child));
    }

    #[test]
    fn what_the_log_keeps_reads_back() {
        let trace = TraceContext::new_root();
        assert_eq!(TraceContext::from_bytes(&trace.to_bytes()), Some(trace));
        assert_eq!(TraceContext::from_bytes(&[0; 24]), None);
    }

    #[test]
    fn what_is_no_trace_context_starts_a_new_trace() {
        for wrong in ["", "00-0-0-00", "00-00000000000000000000000000000000-00f067aa0ba902b7-01"] {
            assert_eq!(wrong.parse::<TraceContext>(), Err(NotATraceContext), "{wrong}");
        }
        assert_ne!(TraceContext::child_of(Some("x")).trace_id(), TraceContext::child_of(None).trace_id());
    }
}
