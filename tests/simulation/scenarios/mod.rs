//! The scenarios that other consumers of streams are tested with, given to this one, and the four
//! defects of another engine, to show that they cannot happen here. Beside them: how shards are
//! shared out ([`sharing`]), a worker that cannot see the lease table ([`seeing`]), two versions in one
//! fleet ([`versions`]) and what an idle fleet costs ([`traffic`]).
//!
//! | | test | where the design differs from what the scenario supposes |
//! |--:|---|---|
//! | 1 | [`taking::a_lease_whose_owner_has_been_still_for_a_lease_duration_is_taken`] | Not a counter in each lease: its owner's one heartbeat row stands still, on the observer's clock, and the take demands that it still does. |
//! | 2 | [`taking::a_lease_whose_owner_beats_between_two_looks_is_not_taken`] | The same heartbeat; one that comes after the last look refuses the take. |
//! | 3 | [`taking::of_three_free_leases_beside_one_of_another_worker_exactly_two_are_taken`] | No limit to set: the fair share is the limit. |
//! | 4 | [`taking::all_three_free_leases_are_taken_if_the_other_worker_is_leaving`] | No priority to set: one takes all as soon as the others are leaving or dead. |
//! | 5 | [`taking::nothing_moves_for_a_worker_that_is_short_by_one`] |  |
//! | 6 | [`taking::of_none_one_and_five_only_the_one_with_five_gives_and_exactly_what_the_others_lack`] | Nobody steals: the one with too many hands over, all that is due and at once. |
//! | 7 | [`taking::while_a_lease_is_free_it_is_taken_and_nobody_has_to_give`] |  |
//! | 8 | [`holding::a_checkpoint_under_a_lease_that_went_elsewhere_is_refused_and_the_lease_dropped`] | The fence is (owner, epoch). |
//! | 9 | [`holding::a_lease_that_was_lost_and_regained_refuses_the_checkpoint_of_the_first_time`] |  |
//! | 10 | [`holding::a_worker_whose_heartbeats_fail_starts_nothing_until_one_succeeds`] | What lapses is trust, for all leases at once and before anybody may take them. |
//! | 11 | [`holding::a_write_that_fails_changes_nothing_in_what_a_worker_holds`] |  |
//! | 12 | [`holding::who_is_handing_a_shard_over_starts_nothing_more_in_it`] | Instead of an owner of the checkpoint there is one owner: who gives a shard up starts nothing more in it, and its epoch is never its again. |
//! | 13 | [`taking::a_lease_that_is_being_handed_over_is_left_alone_until_its_giver_has_died`] | No pending state in the row: while the giver beats, the shard is its own; after that it is a dead worker's. |
//! | 14 | [`coordination::a_listing_that_fails_is_tried_again_soon_and_stops_nothing_else`] | No leader: a listing that fails is tried again soon, and only the listing waits. |
//! | 15 | [`coordination::a_malformed_row_stops_no_other_and_heals`] | A malformed row also heals, by the full listing. |
//! | 16 | [`taking::a_dead_workers_leases_are_shared_among_the_living_and_it_gets_none`] |  |
//! | 17 | [`holding::a_handler_that_overruns_holds_a_hand_over_up_for_the_timeout_and_no_longer`] | The giver gives, whatever is still running; there is no taking in between. |
//! | 18 | [`lineage::a_child_waits_for_its_parent_and_starts_within_a_second_of_its_end`] | A child has no row before its parent has ended, so it cannot be read. |
//! | 19 | [`lineage::an_ended_parent_stays_until_its_children_have_left_their_horizon`] | An ended lease stays until the stream no longer lists it and each child has left its horizon. |
//! | 20 | [`lineage::an_ended_parent_stays_while_the_lease_of_one_of_its_children_is_missing`] | And the missing lease is made up for. |
//! | 21 | [`coordination::the_same_leases_come_about_whichever_call_fails`] | For every kind of call, not applied and applied without an answer. |
//! | 22 | [`lineage::a_fleet_that_starts_at_the_latest_begins_with_the_leaves_only`] | A closed leaf counts too: its children may not be visible yet. |
//! | 23 | [`reading::fetching_stops_while_the_memory_budget_is_full`] | One budget for the process, not for each shard. |
//! | 24 | [`reading::an_iterator_that_expires_is_made_anew_behind_the_last_record`] |  |
//! | 25 | [`lineage::a_shard_that_has_children_counts_as_closed_whatever_else_is_said_of_it`] | Whether a shard is open is never asked: children make it no leaf, and its end is what reading it says. |
//! | 26 | [`lineage::the_closed_shards_of_a_disabled_stream_are_read_to_their_end`] |  |
//! | 27 | [`lineage::a_child_that_becomes_visible_after_some_empty_answers_is_found`] |  |
//! | 28 | [`lineage::three_generations_are_read_from_the_horizon_one_after_another`] | Not eight leases at once: two, and each child's as its parent ends, eight in the end. |
//! | 29 | [`lineage::a_finished_lease_stays_while_listed_and_once_it_may_go_it_is_never_made_anew`] | Rows are removed by the children's progress, parents and children alike; a row that went first is never made anew. |
//! | 30 | [`lineage::a_child_that_appears_after_a_start_at_the_latest_is_read_from_its_horizon`] | There is no LATEST iterator at all. |
//! | 31 | [`lineage::a_finished_shard_is_not_read_again_after_a_restart`] | The row says that it has ended; there is no event to send again. |
//! | 32 | [`coordination::when_the_worker_that_lists_dies_another_lists_within_a_lease_duration`] | No leader row: whoever the hash names lists, and its heartbeat tells whether it lives. |
//! | defect 1 | [`reading::a_checkpoint_that_was_trimmed_is_a_gap_row_and_reading_goes_on`] | Errors are typed; the expired iterator is scenario 24. |
//! | defect 2 | [`reading::a_child_that_stays_invisible_for_long_is_found_by_the_full_listing`] | An empty answer is asked for again, and the listing finds the child however late. |
//! | defect 3 | [`reading::an_ended_lease_that_is_deleted_while_its_child_is_read_is_not_read_again`] | A row that something continues is past, whether or not it is there. |
//! | defect 4 | [`reading::a_hot_shard_delays_neither_a_cold_one_nor_the_heartbeat`] | Every shard is a task of its own, and the heartbeat waits for none. |

mod calls;
mod clocks;
mod coordination;
mod effects;
mod empty_letters;
mod holding;
mod identity;
mod limits;
mod lineage;
mod parking;
mod reading;
mod reporting;
mod rollover;
mod seeing;
mod sharing;
mod stage;
mod streams;
mod taking;
mod traffic;
mod versions;
mod watching;
