//! What the machine has, and who uses its processors, as `/proc` tells.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use anyhow::Result;
use procfs::process::{Stat, all_processes};
use procfs::{CpuInfo, Current as _, CurrentSI as _, KernelStats, Meminfo};
use serde::Serialize;

/// The kernel's unit of processor time: the same hundredth of a second on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// The program that is measured; relay and API too where they have processes of their own.
pub(crate) const PIPELINE: &str = "API, relay and workers";
/// The database's server.
pub(crate) const POSTGRESQL: &str = "PostgreSQL";
/// The broker.
pub(crate) const KAFKA: &str = "Kafka";
/// The mock gateway.
pub(crate) const GATEWAY: &str = "gateway";
/// What places orders and measures.
pub(crate) const LOAD: &str = "load and measurement";
/// The part of the machine's work that is none of ours: other programs, and what the kernel does for nobody in
/// particular.
pub(crate) const OTHERS: &str = "others on this machine";
/// The part that is idle.
pub(crate) const IDLE: &str = "idle";

/// What the machine has.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Processors that may be used.
    pub cores: usize,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// What the processor calls itself.
    pub processor: String,
}

impl Machine {
    /// This one.
    ///
    /// # Errors
    /// Where the system does not say.
    pub fn this() -> Result<Machine> {
        Ok(Machine {
            cores: std::thread::available_parallelism()?.get(),
            memory_mib: Meminfo::current()?.mem_total >> 20,
            processor: CpuInfo::current()?.model_name(0).unwrap_or_default().to_owned(),
        })
    }
}

/// Processor time used up to a moment, in ticks, by part.
#[derive(Clone, Debug)]
pub(crate) struct Usage {
    at: Instant,
    parts: BTreeMap<&'static str, u64>,
    busy: u64,
    idle: u64,
}

/// Processor time used between two moments.
#[derive(Clone, Debug, Serialize)]
pub struct Work {
    /// How long that was, in seconds.
    pub seconds: f64,
    /// By part, in seconds of one processor.
    pub parts: BTreeMap<&'static str, f64>,
}

/// A process and its time, with that of its children that have ended.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Process {
    pid: u32,
    parent: u32,
    name: String,
    ticks: u64,
}

impl Usage {
    /// Of this process and all below it, and of the machine as a whole.
    ///
    /// # Errors
    /// Where the system does not say.
    pub(crate) fn now() -> Result<Usage> {
        let at = Instant::now();
        let (busy, idle) = of_machine(&KernelStats::current()?);
        let mut parts = BTreeMap::new();
        for process in below(std::process::id(), &processes()?) {
            *parts.entry(part_of(process)).or_default() += process.ticks;
        }
        Ok(Usage { at, parts, busy, idle })
    }

    /// What was used from then to now.
    #[must_use]
    pub(crate) fn since(&self, then: &Usage) -> Work {
        let seconds = |now: u64, then: u64| now.saturating_sub(then) as f64 / TICKS_PER_SECOND;
        let before = |part| then.parts.get(part).copied().unwrap_or(0);
        let mut parts: BTreeMap<&'static str, f64> =
            self.parts.iter().map(|(part, ticks)| (*part, seconds(*ticks, before(part)))).collect();
        let ours: f64 = parts.values().sum();
        parts.insert(OTHERS, (seconds(self.busy, then.busy) - ours).max(0.0));
        parts.insert(IDLE, seconds(self.idle, then.idle));
        Work { seconds: self.at.duration_since(then.at).as_secs_f64(), parts }
    }
}

impl Work {
    /// How many processors a part kept busy.
    #[must_use]
    pub fn cores(&self, part: &str) -> f64 {
        self.used(part) / self.seconds.max(f64::MIN_POSITIVE)
    }

    /// How many seconds of a processor a part used.
    #[must_use]
    pub fn used(&self, part: &str) -> f64 {
        self.parts.get(part).copied().unwrap_or(0.0)
    }

    /// How many processors the stack kept busy: what takes orders, not what places them.
    #[must_use]
    pub fn cores_of_the_stack(&self) -> f64 {
        [PIPELINE, POSTGRESQL, KAFKA, GATEWAY].iter().map(|part| self.cores(part)).sum()
    }
}

fn part_of(process: &Process) -> &'static str {
    match process.name.as_str() {
        "ordermill" => PIPELINE,
        "postgres" => POSTGRESQL,
        "java" => KAFKA,
        name if name.starts_with("ordermill-gat") => GATEWAY,
        _ => LOAD,
    }
}

fn processes() -> Result<Vec<Process>> {
    // One that ends meanwhile is none any more; its parent has its time.
    Ok(all_processes()?.filter_map(|process| Some(Process::of(process.ok()?.stat().ok()?))).collect())
}

impl Process {
    fn of(stat: Stat) -> Process {
        // Its own time in user and kernel mode, and that of children it has waited for.
        let ticks = stat.utime + stat.stime + (stat.cutime + stat.cstime).unsigned_abs();
        let (pid, parent) = (stat.pid.unsigned_abs(), stat.ppid.unsigned_abs());
        Process { pid, parent, name: stat.comm, ticks }
    }
}

/// That process and all that descend from it.
fn below(root: u32, all: &[Process]) -> Vec<&Process> {
    let mut children: HashMap<u32, Vec<&Process>> = HashMap::new();
    for process in all {
        children.entry(process.parent).or_default().push(process);
    }
    let mut found: Vec<&Process> = all.iter().filter(|process| process.pid == root).collect();
    let mut next = 0;
    while let Some(process) = found.get(next) {
        found.extend(children.remove(&process.pid).unwrap_or_default());
        next += 1;
    }
    found
}

/// Busy and idle ticks of all processors. The time of guests is in user and nice already.
fn of_machine(stats: &KernelStats) -> (u64, u64) {
    let time = &stats.total;
    let of_the_kernel = [time.irq, time.softirq, time.steal].into_iter().flatten().sum::<u64>();
    let busy = time.user + time.nice + time.system + of_the_kernel;
    (busy, time.idle + time.iowait.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use procfs::{FromRead as _, FromReadSI as _};

    use super::*;

    fn a_process(pid: u32, parent: u32, name: &str, ticks: u64) -> Process {
        Process { pid, parent, name: name.to_owned(), ticks }
    }

    #[test]
    fn a_process_has_its_own_time_and_that_of_its_ended_children() {
        let stat = "42 (a (b) c) S 7 42 42 0 -1 4194560 1 2 3 4 100 20 3 1 20 0 1 0 99 0 0 \
                    0 0 0 0 0 0 0 0 0 0 0 0 0";
        let stat = Stat::from_read(stat.as_bytes()).unwrap();
        assert_eq!(Process::of(stat), a_process(42, 7, "a (b) c", 124));
        assert!(Stat::from_read("42 (torn) S 7".as_bytes()).is_err());
    }

    #[test]
    fn only_what_descends_from_us_is_ours() {
        let all = [
            a_process(1, 0, "init", 9),
            a_process(5, 4, "postgres", 9),
            a_process(2, 1, "bench", 9),
            a_process(4, 2, "ordermill", 9),
            a_process(3, 1, "rustc", 9),
        ];
        let mut pids: Vec<u32> = below(2, &all).iter().map(|process| process.pid).collect();
        pids.sort_unstable();
        assert_eq!(pids, [2, 4, 5]);
    }

    #[test]
    fn a_process_is_known_by_its_name_of_which_the_system_keeps_15_characters() {
        for (name, part) in [
            ("ordermill", PIPELINE),
            ("postgres", POSTGRESQL),
            ("java", KAFKA),
            ("ordermill-gatew", GATEWAY),
            ("ordermill-bench", LOAD),
            ("pgbench", LOAD),
        ] {
            assert_eq!(part_of(&a_process(1, 0, name, 0)), part, "{name}");
        }
    }

    #[test]
    fn what_is_neither_ours_nor_idle_is_the_others() {
        let at = Instant::now();
        let then = Usage { at, parts: [("Kafka", 100)].into(), busy: 1_000, idle: 500 };
        let now = Usage {
            at: at + std::time::Duration::from_secs(2),
            parts: [("Kafka", 150), ("PostgreSQL", 100)].into(),
            busy: 1_250,
            idle: 650,
        };
        let work = now.since(&then);
        let expected = [("Kafka", 0.5), ("PostgreSQL", 1.0), (OTHERS, 1.0), (IDLE, 1.5)];
        assert_eq!(work.parts, expected.into());
        assert!((work.cores("PostgreSQL") - 0.5).abs() < 1e-9);
        assert!(work.cores("nobody").abs() < 1e-9);
    }

    #[test]
    fn waiting_for_the_disk_is_idle_and_time_of_guests_is_not_counted_twice() {
        let stat = "cpu  10 1 5 100 20 2 3 4 7 8\ncpu0 1 2 3 4\nctxt 1\nbtime 1\nprocesses 1\n";
        let stats = KernelStats::from_read(stat.as_bytes(), procfs::current_system_info()).unwrap();
        assert_eq!(of_machine(&stats), (25, 120));
    }

    #[test]
    fn this_machine_has_processors_and_this_process_has_used_them() {
        let machine = Machine::this().unwrap();
        assert!(machine.cores > 0 && machine.memory_mib > 0);
        assert!(Usage::now().unwrap().busy > 0);
    }
}
