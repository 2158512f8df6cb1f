"""Whatever the intake has answered with success is fulfilled, once: the whole way from the request on, with kills."""

import pytest

from ecommerce_worker.tests.chaos import intake as chaos


@pytest.mark.parametrize('fault', ['both-killed', 'queue-deleted', 'everything'])
@pytest.mark.timeout(300)
def test_every_success_ends_as_one_fulfilment_whatever_breaks(own_node, tmp_path, fault):
    story = chaos.run(own_node, tmp_path, fault)
    assert story.kept, story
    assert story.accepted >= story.orders * 2 // 3


@pytest.mark.timeout(300)
def test_with_a_full_disk_under_the_spool_nothing_is_promised_that_is_not_kept(own_node, tmp_path):
    try:
        with chaos.small_disk(tmp_path / 'disk') as disk:
            def fill_and_kill(site):
                chaos.fill(disk)
                site.kill_rabbitmq()

            story = chaos.run(own_node, tmp_path, 'disk-full', spool=disk / 'spool', acts=(fill_and_kill,))
    except PermissionError:
        pytest.skip('nobody here may mount a file system')
    assert story.kept, story
    assert story.unanswered, 'those that post once while the disk is full are refused'
