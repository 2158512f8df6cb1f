from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('ledger', '0006_lines'),
    ]

    operations = [
        migrations.AddIndex(
            model_name='order',
            index=models.Index(fields=['state', 'first_seen'], name='order_state_first_seen'),
        ),
    ]
