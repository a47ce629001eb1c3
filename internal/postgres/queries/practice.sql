-- name: AddPractice :exec
insert into medirecord.practice (id, name, event_id) values (@id, @name, @event_id);

-- name: Practices :many
select id, name, created_at from medirecord.practice order by created_at, id;

-- name: PracticeName :one
select name from medirecord.practice where id = @id;
