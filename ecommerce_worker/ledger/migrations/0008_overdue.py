from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('ledger', '0007_oldest'),
    ]

    operations = [
        migrations.RemoveIndex(
            model_name='order',
            name='order_state_next_try',
        ),
        migrations.AddIndex(
            model_name='order',
            index=models.Index(fields=['state', 'next_try', 'heard'], name='order_state_next_try_heard'),
        ),
    ]
