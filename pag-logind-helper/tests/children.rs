//! Tests with children that allocate. A test harness runs them in threads, and another thread may hold the allocator's lock when
//! a child is made. So they are a program of their own, with one thread, as the helper is.
#![allow(clippy::print_stdout)] // a test says what it does

#[allow(dead_code)] // the helper uses the rest
#[path = "../src/errands.rs"]
mod errands;
#[allow(dead_code)] // the helper uses the rest
#[path = "../src/dbus/token_list.rs"]
mod token_list;

fn main() {
    let tests: [(&str, fn()); 3] = [
        ("each_user_has_one_child", errands::children::each_user_has_one_child_at_a_time_and_waits_for_no_other),
        ("a_held_child", errands::children::a_child_that_is_held_costs_its_user_errands_and_nobody_else),
        ("a_hanging_child", token_list::children::the_loop_goes_on_while_a_child_hangs_and_the_child_is_killed),
    ];
    for (name, test) in tests {
        test();
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        assert!(status.contains("\nThreads:\t1\n"), "{name} has made a thread: {status}");
        println!("test {name} ... ok");
    }
    println!("test result: ok. {} passed; 0 failed; 0 ignored", tests.len());
}
