import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    dependencies: list[tuple[str, str]] = []

    operations = [
        migrations.CreateModel(
            name='Audit',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('at', models.DateTimeField(db_index=True)),
                ('who', models.CharField(max_length=255)),
                ('action', models.CharField(max_length=32)),
                ('reason', models.CharField(max_length=1000)),
                ('message_id', models.CharField(db_index=True, max_length=255)),
                ('key', models.CharField(db_index=True, max_length=128)),
                ('task', models.CharField(max_length=255)),
            ],
        ),
        migrations.CreateModel(
            name='SetAside',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('digest', models.CharField(max_length=64, unique=True)),
                ('body', models.BinaryField()),
                ('reason', models.CharField(max_length=1000)),
                ('received', models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name='Order',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('identity', models.UUIDField(unique=True)),
                ('key', models.CharField(db_index=True, max_length=255)),
                ('task', models.CharField(max_length=255)),
                ('site', models.CharField(max_length=128)),
                ('state', models.CharField(default='trying', max_length=10)),
                ('reason', models.CharField(max_length=1000)),
                ('status', models.PositiveSmallIntegerField(null=True)),
                ('next_try', models.DateTimeField(null=True)),
                ('attempts', models.PositiveIntegerField(default=0)),
                ('first_seen', models.DateTimeField()),
                ('last_seen', models.DateTimeField()),
            ],
            options={
                'indexes': [models.Index(fields=['state', 'last_seen'], name='order_state_last_seen'), models.Index(fields=['last_seen'], name='order_last_seen')],
            },
        ),
        migrations.CreateModel(
            name='Attempt',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('fact', models.UUIDField(unique=True)),
                ('message_id', models.CharField(db_index=True, max_length=255)),
                ('root_id', models.CharField(max_length=255)),
                ('outcome', models.CharField(max_length=10)),
                ('attempt', models.PositiveIntegerField()),
                ('reason', models.CharField(max_length=1000)),
                ('status', models.PositiveSmallIntegerField(null=True)),
                ('queue', models.CharField(max_length=255)),
                ('worker', models.CharField(max_length=255)),
                ('started', models.DateTimeField()),
                ('seconds', models.FloatField()),
                ('next_try', models.DateTimeField(null=True)),
                ('order', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='facts', to='ledger.order')),
            ],
            options={
                'indexes': [models.Index(fields=['started', 'outcome'], name='attempt_started_outcome')],
            },
        ),
        migrations.CreateModel(
            name='ParkedMessage',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('identity', models.UUIDField(unique=True)),
                ('message_id', models.CharField(db_index=True, max_length=255)),
                ('task', models.CharField(max_length=255)),
                ('key', models.CharField(db_index=True, max_length=128)),
                ('site', models.CharField(max_length=128)),
                ('queue', models.CharField(max_length=255)),
                ('reason', models.CharField(max_length=1000)),
                ('tries', models.PositiveIntegerField()),
                ('parked_at', models.DateTimeField()),
                ('history', models.TextField()),
                ('body', models.BinaryField(null=True)),
                ('headers', models.TextField()),
                ('content_type', models.CharField(max_length=255)),
                ('content_encoding', models.CharField(max_length=255)),
                ('correlation_id', models.CharField(max_length=255)),
                ('size', models.PositiveIntegerField()),
                ('settled_at', models.DateTimeField(null=True)),
                ('settled', models.CharField(max_length=10)),
                ('order', models.ForeignKey(null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='parked', to='ledger.order')),
            ],
            options={
                'indexes': [models.Index(fields=['settled', 'parked_at'], name='parked_settled_parked_at')],
            },
        ),
    ]
