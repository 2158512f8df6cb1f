#!/bin/sh
# Sets the policies that this worker should have in RabbitMQ, on the machine of a node; harmless to repeat.
#
#   deploy/rabbitmq/policies.sh [VIRTUAL HOST]
#
# Since 4.0 a quorum queue drops a message that came back to it 20 times.
#   ecommerce-tasks   parks such a message instead, and confirms that it did before it lets go of it
#   ecommerce-looks   lets the worker's own queues be looked into as often as anybody likes
# Every version from 3.10 on takes them. Of a classic queue, which counts nothing, they park what another policy would
# destroy. (Policies for quorum queues only are known from 3.12 on.)
# An existing policy of a higher priority on these queues wins: then add these keys to it.
set -eu

vhost=${1:-/}
rabbitmqctl=${RABBITMQCTL:-rabbitmqctl}

set_policy() {
    "$rabbitmqctl" set_policy --vhost "$vhost" --priority 10 --apply-to queues "$1" "$2" "$3"
}

set_policy ecommerce-tasks '^(ecommerce\.)?(fulfillment|email_marketing|default)$' '{
    "dead-letter-exchange": "",
    "dead-letter-routing-key": "ecommerce.parked",
    "dead-letter-strategy": "at-least-once",
    "overflow": "reject-publish"
}'
# Not -1, which RabbitMQ before 4.0 takes for no second delivery at all.
set_policy ecommerce-looks '^ecommerce(_celery_delayed_[0-9]+|\.parked(\.large)?|\.ledger)$' '{"delivery-limit": 1000000000}'
