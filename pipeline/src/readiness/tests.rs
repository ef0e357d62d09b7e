//! What is not ready, by what is seen at which moment.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn expected() -> Expected {
    let roles = ["relay", "worker:stock", "worker:timers"].map(str::to_owned).to_vec();
    Expected { roles, groups: vec![("stock".to_owned(), vec!["orders".to_owned()])] }
}

fn sign(role: &str, instance: &str) -> Sign {
    let (role, instance) = (role.to_owned(), instance.to_owned());
    Sign { role, instance, turned: SECOND, failing: None, canary: None, quiet: None }
}

fn failing(sign: Sign, seconds: u64, what: &str) -> Sign {
    let failing = Failing { long: SECOND * u32::try_from(seconds).unwrap(), what: what.to_owned() };
    Sign { failing: Some(failing), ..sign }
}

fn waiting(role: &str, place: &str, progress: i64) -> Waiting {
    Waiting { role: role.to_owned(), place: place.to_owned(), progress }
}

/// Two relays of which `a` leads, and a worker of each kind; nothing waits.
fn well() -> Sight {
    let signs = [("relay", "a"), ("relay", "b"), ("worker:stock", "c"), ("worker:timers", "d")]
        .map(|(role, at)| sign(role, at));
    Sight { leader: Some("a".to_owned()), led: Some(SECOND), signs: signs.to_vec(), ..Sight::default() }
}

/// With another sign in the place of one's.
fn with(mut sight: Sight, sign: Sign) -> Sight {
    sight.signs.retain(|known| (&known.role, &known.instance) != (&sign.role, &sign.instance));
    sight.signs.push(sign);
    sight
}

/// What is told of a single look: roles and codes.
fn told(sight: &Sight) -> Vec<(String, &'static str)> {
    roles(Judge::default().judge(sight, &expected(), Instant::now()))
}

fn roles(troubles: Vec<Trouble>) -> Vec<(String, &'static str)> {
    troubles.into_iter().map(|trouble| (trouble.role, trouble.code)).collect()
}

fn only(role: &str, code: &'static str) -> Vec<(String, &'static str)> {
    vec![(role.to_owned(), code)]
}

/// Looks one after the other, a second apart.
struct Looks {
    judge: Judge,
    now: Instant,
}

impl Looks {
    fn new() -> Looks {
        Looks { judge: Judge::default(), now: Instant::now() }
    }

    /// A look at that, a second after the last one.
    fn look(&mut self, waiting: &[Waiting]) -> Vec<(String, &'static str)> {
        self.now += SECOND;
        let sight = Sight { waiting: waiting.to_vec(), ..well() };
        roles(self.judge.judge(&sight, &expected(), self.now))
    }

    /// So many looks at the same, of which none shows any trouble.
    fn pass(&mut self, seconds: u64, waiting: &[Waiting]) {
        for second in 0..seconds {
            assert_eq!(self.look(waiting), [], "after {second} s");
        }
    }
}

#[test]
fn where_all_live_and_nothing_waits_all_is_ready() {
    assert_eq!(told(&well()), []);
}

#[test]
fn who_gives_no_sign_of_life_does_not_answer_unless_another_of_its_kind_does() {
    let mut sight = well();
    sight.signs.retain(|sign| sign.instance != "b" && sign.instance != "d");
    assert_eq!(told(&sight), only("worker:timers", "NOT_ANSWERING"));
}

#[test]
fn that_no_relay_leads_is_told_after_a_while_with_why() {
    let led = |led| Sight { led, leader: None, ..well() };
    assert_eq!(told(&led(Some(PATIENCE - SECOND))), [], "another is about to");
    assert_eq!(told(&led(Some(PATIENCE))), only("relay", "NOT_LEADING"));
    assert_eq!(told(&led(None)), only("relay", "NOT_LEADING"));
    // Somebody may hold the lead and never get to publish.
    let held = Sight { leader: Some("a".to_owned()), ..led(Some(PATIENCE)) };
    let held = with(held, failing(sign("relay", "b"), 3, "Kafka takes nothing"));
    let troubles = Judge::default().judge(&held, &expected(), Instant::now());
    let expected = "no relay has led for 10 s: Kafka takes nothing; the relay's log says more";
    assert_eq!(troubles.first().unwrap().detail, expected);
}

#[test]
fn a_relay_that_stands_by_may_fail_and_one_that_leads_may_not() {
    let fails =
        |instance, seconds| with(well(), failing(sign("relay", instance), seconds, "the database fails"));
    assert_eq!(told(&fails("b", 60)), []);
    assert_eq!(told(&fails("a", 9)), []);
    assert_eq!(told(&fails("a", 10)), only("relay", "FAILING"));
}

#[test]
fn a_worker_that_fails_for_long_is_told_also_beside_another() {
    let sight = with(well(), failing(sign("worker:timers", "e"), 12, "deadlines can't be kept"));
    let troubles = Judge::default().judge(&sight, &expected(), Instant::now());
    assert_eq!(troubles.first().unwrap().detail, "deadlines can't be kept, for 12 s; its log says why");
    assert_eq!(roles(troubles), only("worker:timers", "FAILING"));
    assert_eq!(told(&with(well(), failing(sign("worker:timers", "d"), 9, "deadlines can't be kept"))), []);
}

#[test]
fn a_loop_that_does_not_come_round_stands_still() {
    let turned = |turned| with(well(), Sign { turned, ..sign("worker:timers", "d") });
    assert_eq!(told(&turned(PATIENCE - SECOND)), []);
    assert_eq!(told(&turned(PATIENCE)), only("worker:timers", "STANDS_STILL"));
}

#[test]
fn a_group_that_was_stopped_is_told_with_what_to_do_and_not_twice() {
    let halted = vec![Stopped { group: "stock".to_owned(), reason: "3 of 4 can't be applied".to_owned() }];
    let mut sight = with(Sight { halted, ..well() }, failing(sign("worker:stock", "c"), 60, "a batch fails"));
    let troubles = Judge::default().judge(&sight, &expected(), Instant::now());
    let detail = &troubles.first().unwrap().detail;
    assert!(detail.contains("3 of 4") && detail.ends_with("`ordermill dlq resume stock`"), "{detail}");
    assert_eq!(roles(troubles), only("worker:stock", "HALTED"));
    sight.signs.retain(|sign| sign.instance != "c");
    assert_eq!(
        told(&sight),
        [only("worker:stock", "NOT_ANSWERING"), only("worker:stock", "HALTED")].concat()
    );
}

#[test]
fn a_group_stands_still_once_something_has_waited_for_long_and_nothing_was_done() {
    let mut looks = Looks::new();
    let waits = [waiting("worker:stock", "orders/0", 5)];
    looks.pass(10, &waits);
    assert_eq!(looks.look(&waits), only("worker:stock", "STANDS_STILL"));
    assert_eq!(looks.look(&[waiting("worker:stock", "orders/0", 6)]), [], "it has moved");
    looks.pass(60, &[]);
}

#[test]
fn a_group_that_stands_still_and_fails_since_a_little_less_long_says_why() {
    let mut looks = Looks::new();
    let waits = [waiting("worker:stock", "orders/0", 5)];
    looks.pass(10, &waits);
    let sight = Sight { waiting: waits.to_vec(), ..well() };
    let sight = with(sight, failing(sign("worker:stock", "c"), 9, "batches"));
    let told = looks.judge.judge(&sight, &expected(), looks.now + SECOND);
    assert_eq!(roles(told), only("worker:stock", "FAILING"));
}

#[test]
fn a_group_that_is_behind_and_moves_does_not_stand_still() {
    let mut looks = Looks::new();
    for progress in 0..60 {
        assert_eq!(looks.look(&[waiting("worker:stock", "orders/0", progress)]), []);
    }
}

#[test]
fn what_comes_after_a_quiet_time_has_waited_since_it_came() {
    let mut looks = Looks::new();
    looks.pass(60, &[]);
    looks.pass(9, &[waiting("worker:stock", "orders/0", 5)]);
    looks.pass(3, &[]);
    looks.pass(9, &[waiting("worker:stock", "orders/0", 7)]);
}

#[test]
fn one_partition_may_wait_for_longer_while_others_move() {
    let mut looks = Looks::new();
    let mut progress = 0;
    let mut look = |looks: &mut Looks| {
        progress += 1;
        looks.look(&[waiting("worker:stock", "orders/0", progress), waiting("worker:stock", "orders/1", 5)])
    };
    for _ in 0..60 {
        assert_eq!(look(&mut looks), []);
    }
    assert_eq!(look(&mut looks), only("worker:stock", "STANDS_STILL"));
}

#[test]
fn a_partition_that_is_left_alone_when_the_others_are_done_stands_still_after_the_usual_time() {
    let mut looks = Looks::new();
    let alone = waiting("worker:stock", "orders/1", 5);
    looks.pass(5, &[waiting("worker:stock", "orders/0", 3), alone.clone()]);
    // The other is done with now, so that the group has moved.
    looks.pass(10, std::slice::from_ref(&alone));
    assert_eq!(looks.look(&[alone]), only("worker:stock", "STANDS_STILL"));
}

#[test]
fn a_relay_whose_cursor_stays_before_the_end_of_the_log_stands_still() {
    let mut looks = Looks::new();
    looks.pass(10, &[waiting("relay", "", 7)]);
    assert_eq!(looks.look(&[waiting("relay", "", 7)]), only("relay", "STANDS_STILL"));
}

/// What is seen where the relay has sent canaries for so many seconds and the group met one so many seconds ago.
fn canaries(quiet: Option<u32>, met: Option<u32>) -> Sight {
    let leader = Sign { quiet: quiet.map(|seconds| SECOND * seconds), ..sign("relay", "a") };
    let member = Sign { canary: met.map(|seconds| SECOND * seconds), ..sign("worker:stock", "c") };
    with(with(well(), leader), member)
}

#[test]
fn a_group_that_meets_no_canary_while_they_are_sent_stands_still() {
    for (quiet, met, stands_still) in [
        (Some(600), Some(9), false),
        (Some(600), Some(10), true),
        // It could not meet any before they were sent.
        (Some(9), Some(600), false),
        (None, Some(600), false),
    ] {
        let told = told(&canaries(quiet, met));
        assert_eq!(told == only("worker:stock", "STANDS_STILL"), stands_still, "{quiet:?} {met:?}: {told:?}");
        assert!(stands_still || told.is_empty(), "{told:?}");
    }
}

#[test]
fn a_group_with_a_backlog_meets_no_canary_before_it_is_done_and_need_not() {
    let (mut judge, mut now) = (Judge::default(), Instant::now());
    let mut look = |met, waiting: &[Waiting]| {
        now += SECOND;
        let sight = Sight { waiting: waiting.to_vec(), ..canaries(Some(600), Some(met)) };
        roles(judge.judge(&sight, &expected(), now))
    };
    let mut met = 0;
    for progress in 0..60 {
        met += 1;
        assert_eq!(look(met, &[waiting("worker:stock", "orders/0", progress)]), []);
    }
    // It is done, and the next canary is about to come.
    for _ in 0..10 {
        met += 1;
        assert_eq!(look(met, &[]), []);
    }
    assert_eq!(look(met + 1, &[]), only("worker:stock", "STANDS_STILL"));
}

#[test]
fn of_a_group_one_member_meets_the_canaries() {
    let other = Sign { canary: Some(SECOND * 600), ..sign("worker:stock", "d") };
    assert_eq!(told(&with(canaries(Some(600), Some(3)), other)), []);
}

#[test]
fn canaries_that_no_member_is_to_meet_may_just_go_to_another_for_a_while() {
    let (mut judge, begin) = (Judge::default(), Instant::now());
    let mut look =
        |met, seconds| roles(judge.judge(&canaries(Some(600), met), &expected(), begin + SECOND * seconds));
    assert_eq!((look(None, 0), look(None, 9)), (vec![], vec![]));
    assert_eq!(look(Some(1), 10), []);
    assert_eq!((look(None, 11), look(None, 20)), (vec![], vec![]));
    assert_eq!(look(None, 21), only("worker:stock", "STANDS_STILL"));
}

#[test]
fn only_the_leading_relay_says_whether_canaries_are_sent() {
    let stands_by = Sign { quiet: Some(SECOND * 600), ..sign("relay", "b") };
    assert_eq!(told(&with(canaries(None, Some(600)), stands_by)), []);
}
