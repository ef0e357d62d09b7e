//! W3C trace context: one trace from the HTTP request through log and Kafka to the last worker.

use std::fmt;
use std::str::FromStr;

/// A `traceparent` of version 00.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: u128,
    span_id: u64,
    flags: u8,
}

impl TraceContext {
    /// A new trace, sampled.
    #[must_use]
    pub fn new_root() -> TraceContext {
        TraceContext { trace_id: rand::random_range(1..=u128::MAX), span_id: new_span_id(), flags: 1 }
    }

    /// A new span of the same trace.
    #[must_use]
    pub fn child(self) -> TraceContext {
        TraceContext { span_id: new_span_id(), ..self }
    }

    /// A new span of the trace that `header` names, or a new trace where it names none.
    #[must_use]
    pub fn child_of(header: Option<&str>) -> TraceContext {
        header.and_then(|header| header.parse().ok()).map_or_else(TraceContext::new_root, TraceContext::child)
    }

    /// How many bytes the log keeps of one.
    pub(crate) const BYTES: usize = 25;

    /// As the log keeps it: trace id, span id, flags.
    #[must_use]
    pub(crate) fn to_bytes(self) -> [u8; TraceContext::BYTES] {
        let mut bytes = [0; TraceContext::BYTES];
        bytes[..16].copy_from_slice(&self.trace_id.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.span_id.to_be_bytes());
        bytes[24] = self.flags;
        bytes
    }

    /// What [`TraceContext::to_bytes`] has made; `None` where it has not.
    #[must_use]
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<TraceContext> {
        let bytes: &[u8; TraceContext::BYTES] = bytes.try_into().ok()?;
        Some(TraceContext {
            trace_id: u128::from_be_bytes(bytes[..16].try_into().ok()?),
            span_id: u64::from_be_bytes(bytes[16..24].try_into().ok()?),
            flags: bytes[24],
        })
    }

    /// The trace's id as 32 hexadecimal digits, as logs show it.
    #[must_use]
    pub fn trace_id(self) -> String {
        format!("{:032x}", self.trace_id)
    }
}

fn new_span_id() -> u64 {
    rand::random_range(1..=u64::MAX)
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

/// The text is not a trace context that this version understands.
#[derive(Debug, PartialEq, Eq)]
pub struct NotATraceContext;

impl FromStr for TraceContext {
    type Err = NotATraceContext;

    fn from_str(text: &str) -> Result<TraceContext, NotATraceContext> {
        let parts: Vec<&str> = text.split('-').collect();
        let ["00", trace_id, span_id, flags] = parts[..] else { return Err(NotATraceContext) };
        let context = TraceContext {
            trace_id: u128::from_str_radix(trace_id, 16).map_err(|_| NotATraceContext)?,
            span_id: u64::from_str_radix(span_id, 16).map_err(|_| NotATraceContext)?,
            flags: u8::from_str_radix(flags, 16).map_err(|_| NotATraceContext)?,
        };
        // Capitals, signs and other lengths are not those of the format.
        let is_valid = context.trace_id != 0 && context.span_id != 0 && context.to_string() == text;
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
