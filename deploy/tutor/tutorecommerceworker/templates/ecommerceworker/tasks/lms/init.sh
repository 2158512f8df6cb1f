# Who the worker is to the LMS: a user of its staff, and an OAuth2 application of its own.
./manage.py lms manage_user ecommerce_worker ecommerce_worker@openedx --staff --unusable-password
./manage.py lms create_dot_application \
  --grant-type client-credentials \
  --redirect-uris "{% if ENABLE_HTTPS %}https{% else %}http{% endif %}://{{ ECOMMERCEWORKER_HOST }}/" \
  --client-id {{ ECOMMERCEWORKER_OAUTH2_KEY }} \
  --client-secret {{ ECOMMERCEWORKER_OAUTH2_SECRET }} \
  --scopes user_id \
  --skip-authorization \
  --update ecommerce-worker ecommerce_worker
