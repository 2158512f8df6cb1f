from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('ledger', '0004_intakes'),
    ]

    operations = [
        migrations.AddField(
            model_name='order',
            name='cause',
            field=models.CharField(default='', max_length=32),
        ),
    ]
