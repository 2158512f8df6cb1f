"""What tests of the worker, and of what extends it, are made with; kept for a major version as ``extension`` is.

====================  ===============================================================================================
``testing.worker``    a worker in memory for tests of extensions, and ``contract``, what every kind of intake keeps to
``testing.peer``      a server on loopback with scripted answers, which records requests
``testing.vendors``   what every vendor of mail keeps to, as a class of tests for pytest
``testing.intake``    what every source of an intake keeps to, as a class of tests for pytest; an intake in memory
``testing.shop``      a stand-in for the shop and its token service, for demonstrations too
``testing.mail``      a stand-in for SendGrid
``testing.rabbitmq``  a private RabbitMQ, where its programs are installed
====================  ===============================================================================================
"""
