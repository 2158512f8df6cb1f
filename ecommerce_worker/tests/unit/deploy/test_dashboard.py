"""The dashboard for Grafana, and the metrics that it, the alerts and the reference speak of."""

import runpy

from ecommerce_worker.tests.support.prometheus import DASHBOARD, alerts, described, expressions, named, panels


def test_the_dashboard_is_what_its_program_writes():
    written = runpy.run_path(str(DASHBOARD.with_name('dashboard.py')))['written']()
    assert written == DASHBOARD.read_text(), 'run deploy/grafana/dashboard.py > deploy/grafana/ecommerce-worker.json'


def test_panels_have_ids_of_their_own_and_none_lies_over_another():
    found = panels()
    assert len({panel['id'] for panel in found}) == len(found)
    places = [(panel['gridPos']['x'] + x, panel['gridPos']['y'] + y) for panel in found
              for x in range(panel['gridPos']['w']) for y in range(panel['gridPos']['h'])]
    assert len(set(places)) == len(places)
    assert {x for x, _ in places} == set(range(24))


def test_all_that_is_measured_is_in_the_reference_and_on_the_dashboard_or_in_an_alert():
    asked = named(' '.join([*expressions(), *alerts().values()]))
    assert asked - described() == set()
    assert described() - asked == set()


def test_a_value_that_is_chosen_stands_in_double_quotes_as_grafana_escapes_it():
    assert all('`' not in expr for expr in expressions())
