from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('ledger', '0001_initial'),
    ]

    operations = [
        migrations.CreateModel(
            name='BeatTick',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=255, unique=True)),
                ('at', models.FloatField()),
            ],
        ),
        migrations.CreateModel(
            name='Firing',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('entry', models.CharField(max_length=255, unique=True)),
                ('fired', models.FloatField()),
                ('claimed_by', models.CharField(max_length=255)),
                ('claimed_until', models.FloatField(default=0)),
                ('published', models.FloatField(null=True)),
                ('missed', models.PositiveIntegerField(default=0)),
                ('missed_at', models.FloatField(null=True)),
            ],
        ),
    ]
