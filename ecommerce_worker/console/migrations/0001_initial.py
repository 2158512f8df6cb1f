from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    dependencies: list[tuple[str, str]] = []

    operations = [
        migrations.CreateModel(
            name='Right',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
            ],
            options={
                'permissions': (
                    ('look', 'Look at orders and parked messages'),
                    ('resend', 'Send a parked message again'),
                    ('discard', 'Throw a parked message away'),
                    ('read', 'Read what is in a parked message'),
                ),
                'managed': False,
                'default_permissions': (),
            },
        ),
    ]
